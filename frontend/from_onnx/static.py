"""The one form in which every reader gets an ONNX model: static shapes, constants computed, windows spelled out."""

from collections.abc import Sequence

import onnx

from subpc.errors import ConfigError
from subpc.frontend.from_onnx.model.batch import for_batch, says_what_is_fixed
from subpc.frontend.from_onnx.model.fold import fold
from subpc.frontend.from_onnx.model.supported import check_supported
from subpc.frontend.from_onnx.read import check_channels, with_static_shapes
from subpc.frontend.from_onnx.windows import explicit_windows


def static_model(model: onnx.ModelProto, shapes: Sequence[tuple[int, ...]]) -> onnx.ModelProto:
    """A copy of `model` for inputs of `shapes` (none: the model's own); SubpcError where it cannot be computed for them."""
    try:
        static = fold(with_static_shapes(for_batch(model, shapes), shapes), shapes)
        check_supported(static, folded=True)
        check_channels(static.graph, shapes)
    except ConfigError as error:
        raise says_what_is_fixed(error, model, shapes) from error
    return explicit_windows(static)
