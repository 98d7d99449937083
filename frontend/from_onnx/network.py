"""What an .onnx file holds, read once: import, compression and comparison all start from here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from subpc.errors import ConfigError
from subpc.frontend.from_onnx.graph import opset_of, user_inputs, value_shapes
from subpc.frontend.from_onnx.model.batch import for_batch, says_what_is_fixed
from subpc.frontend.from_onnx.model.codes import ConstantCodes
from subpc.frontend.from_onnx.model.fold import fold
from subpc.frontend.from_onnx.model.inputs import described_inputs
from subpc.frontend.from_onnx.model.names import original_names
from subpc.frontend.from_onnx.model.supported import check_supported
from subpc.frontend.from_onnx.read import (
    check_channels,
    input_dtype,
    read_onnx,
    with_static_shapes,
)
from subpc.frontend.from_onnx.windows import explicit_windows
from subpc.frontend.input_shapes import Input


class OnnxFile:
    """A file, read and checked. inputs: what it says of those that a caller gives; output_names:
    its own."""

    def __init__(self, path: Path) -> None:
        """Read `path`; ModelFileError or UnsupportedModelError where it is damaged, or cannot be
        compiled for any shape."""
        self._model = read_onnx(path)
        for value in user_inputs(self._model.graph):
            input_dtype(value)
        self.inputs: list[Input] = described_inputs(self._model)
        self.output_names = tuple(str(value.name) for value in self._model.graph.output)

    def network(self, shapes: Sequence[tuple[int, ...]]) -> "OnnxNetwork":
        """The network for inputs of `shapes` (none: the file's own); SubpcError where it cannot be
        computed for them."""
        try:
            folded = fold(with_static_shapes(for_batch(self._model, shapes), shapes), shapes)
            check_supported(folded.model, folded=True)
            check_channels(folded.model.graph, shapes)
        except ConfigError as error:
            raise says_what_is_fixed(error, self._model, shapes) from error
        return OnnxNetwork(explicit_windows(folded.model), folded.codes)


@dataclass(frozen=True)
class OnnxNetwork:
    """A network for one set of input shapes: in order, all that follows from constants computed,
    windows spelled out.

    Nothing of it may be changed: all that read it share it. codes: of constants that the file has
    as whole numbers.
    """

    model: onnx.ModelProto
    codes: ConstantCodes

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """Each after those that it reads."""
        return self.model.graph.node  # type: ignore[no-any-return]

    @cached_property
    def opset(self) -> int:
        """The version of the standard operators."""
        return opset_of(self.model)

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What a caller gives."""
        return user_inputs(self.model.graph)

    @cached_property
    def outputs(self) -> list[str]:
        """Names of what a caller gets."""
        return [value.name for value in self.model.graph.output]

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """The value of each constant."""
        return {t.name: np.array(numpy_helper.to_array(t)) for t in self.model.graph.initializer}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each value for which it is known, constants included."""
        return value_shapes(self.model.graph) | {
            name: value.shape for name, value in self.constants.items()
        }

    @cached_property
    def names(self) -> dict[str, str]:
        """A name that says something for each constant: see original_names."""
        return original_names(self.model.graph, self.codes.names())

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each value, one once for each time that it does."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found
