"""Which torch operators reach TVM: those kept whole for the passes, and all that its importer does not know, listed at once."""

from torch import fx
from torch.export import ExportedProgram
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from subpc.frontend.messages import describe_unsupported, printable

# Composites that one Relax operator, or one pattern, stands for. Opened up, a pass would have to recognise them again.
# relu6 is not here: opened, it becomes the clip that ONNX writes too.
KEPT_WHOLE = frozenset(
    {
        "aten.adaptive_avg_pool1d.default",
        "aten.adaptive_avg_pool2d.default",
        "aten.conv1d.default",
        "aten.conv2d.default",
        "aten.hardsigmoid.default",
        "aten.hardswish.default",
        "aten.layer_norm.default",
        "aten.linear.default",
        "aten.max_pool1d.default",
        "aten.max_pool2d.default",
        "aten.pixel_shuffle.default",
        "aten.prelu.default",
        "aten.silu.default",
        "aten.softmax.int",
        "aten.log_softmax.int",
        "aten.upsample_bicubic2d.vec",
        "aten.upsample_bilinear2d.vec",
        "aten.upsample_nearest2d.vec",
    }
)


def unsupported_operators(program: ExportedProgram) -> str:
    """A message that names every operator without a conversion and the layers that use it; empty where there is none."""
    known = ExportedProgramImporter().create_convert_map()
    missing: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target.__name__ not in known:
            missing.setdefault(str(node.target), []).append(layer_name(node))
    return describe_unsupported(missing)


def layer_name(node: fx.Node) -> str:
    """The path of the innermost module that the node comes from, such as `layer1.0.conv1`."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return printable(path.removeprefix("L['self'].").removeprefix("L['self']")) or "the model itself"
