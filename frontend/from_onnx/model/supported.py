"""Which ONNX operators are taken: first in the file as it is, then in what is left of it when all
that follows from constants is known."""

import onnx
from tvm.relax.frontend.onnx import onnx_frontend

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_onnx.graph import STANDARD_DOMAINS, node_name
from subpc.frontend.from_onnx.model.functions import OPENED
from subpc.frontend.from_onnx.model.refused import refused
from subpc.frontend.from_onnx.relax_converters.table import OURS
from subpc.frontend.messages import describe_unsupported, printable

# Branches whose condition is a constant are taken or left out, like composite operators opened,
# before anything is imported.
_GONE_LATER = OPENED | {"If", "Constant"}


def check_supported(model: onnx.ModelProto, *, folded: bool = False) -> None:
    """UnsupportedModelError with all operators that have no conversion, and the nodes that use
    them.

    folded: `model` is what is imported, without anything that follows from constants.
    """
    _check_outputs(model.graph)
    known = (
        onnx_frontend._get_convert_map().keys()
        | OURS.keys()
        | (frozenset({"Constant"}) if folded else _GONE_LATER)
    )
    missing: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.domain not in STANDARD_DOMAINS or node.op_type not in known:
            operator = (
                f"{node.domain}.{node.op_type}"
                if node.domain not in STANDARD_DOMAINS
                else node.op_type
            )
            missing.setdefault(_IN_WORDS.get(operator, operator), []).append(node_name(node))
        elif reason := refused(node, model.graph):
            missing.setdefault(reason, []).append(node_name(node))
    if missing:
        raise UnsupportedModelError(describe_unsupported(missing))


_IN_WORDS = {"If": "If, whose condition depends on the input,"}


def _check_outputs(graph: onnx.GraphProto) -> None:
    for value in graph.output:
        kind = str(value.type.WhichOneof("value"))
        if kind not in ("tensor_type", "None"):
            what = kind.removesuffix("_type").replace("_", " ")
            raise UnsupportedModelError(
                f"Output {printable(value.name)!r} of the model is a {what}; compiled models give"
                " tensors."
            )
