"""ONNX's own conformance cases: one model each, its inputs and what it has to give. They come with
the onnx package."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from subpc.frontend.from_onnx.read import user_inputs

# Folders of whole models beside the generated cases of single operators; those that are called
# `real` are downloads.
_FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True, kw_only=True)
class Case:
    """inputs, outputs: arrays, or other things where the model takes or gives no tensors."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    def bound(self, names: Sequence[str]) -> tuple[onnx.ModelProto, tuple[Any, ...]]:
        """The model with some of its inputs as constants, as a network has them, and the values of
        the others."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        values = dict(
            zip((value.name for value in user_inputs(model.graph)), self.inputs, strict=True)
        )
        model.graph.initializer.extend(
            numpy_helper.from_array(values[name], name) for name in names
        )
        return model, tuple(value for name, value in values.items() if name not in names)

    def is_open(self) -> bool:
        """Whether the model leaves the shape of an input open."""
        dims = [
            dim
            for value in user_inputs(self.model.graph)
            for dim in value.type.tensor_type.shape.dim
        ]
        return any(dim.dim_value < 1 for dim in dims)

    def bindings(self) -> Iterator[tuple[str, ...]]:
        """Which inputs to make constants, one attempt after the other: none, what is no float
        (sizes, axes), all but the first."""
        inputs = user_inputs(self.model.graph)
        if any(not value.type.HasField("tensor_type") for value in inputs):
            yield ()  # sequences cannot be constants
            return
        integers = tuple(
            value.name for value in inputs if value.type.tensor_type.elem_type != TensorProto.FLOAT
        )
        attempts = [
            (),
            integers if len(integers) < len(inputs) else (),
            tuple(value.name for value in inputs[1:]),
        ]
        yield from dict.fromkeys(attempts)


@functools.lru_cache(maxsize=1)
def cases() -> dict[str, Case]:
    """All of them by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators divide by zero on purpose
        nodes = load_model_tests(kind="node")
    found = [
        Case(
            name=case.name,
            model=case.model,
            inputs=_plain(case.data_sets[0][0]),
            outputs=_plain(case.data_sets[0][1]),
        )
        for case in nodes
    ]
    found += [
        _read(Path(case.model_dir)) for folder in _FOLDERS for case in load_model_tests(kind=folder)
    ]
    return {case.name.removeprefix("test_"): case for case in found}


def _plain(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
        for value in values
    )


def _read(folder: Path) -> Case:
    model = onnx.load(folder / "model.onnx")
    data = folder / "test_data_set_0"
    inputs = [
        _value(data / f"input_{i}.pb", value) for i, value in enumerate(user_inputs(model.graph))
    ]
    outputs = [_value(data / f"output_{i}.pb", value) for i, value in enumerate(model.graph.output)]
    return Case(name=folder.name, model=model, inputs=tuple(inputs), outputs=tuple(outputs))


def _value(path: Path, declared: onnx.ValueInfoProto) -> Any:
    if not declared.type.HasField("tensor_type"):
        return path.name
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)
