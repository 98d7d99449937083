"""The compiled form before code: kernel calls in order, and where each of their operands lives."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import LINE_BYTES, TensorLayout, round_up
from subpc.schedules.operand import Operand
from subpc.schedules.quantization import Quantization

# The type under which entry points take weights and workspace, whatever lies in them.
BLOB = "float32"


@dataclass(frozen=True, kw_only=True)
class Location:
    """Address of an operand: `offset` bytes into the weight blob, an input, an output, or workspace
    buffer `index`."""

    space: str  # "weights", "workspace", "input", "output"
    index: int = 0
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One kernel call; operands in the order of `kernel.operands`. layer: the name that the user
    knows.

    quantization: what its result's codes stand for, None where it is no codes.
    joined: the kernel of a step before computes this one's result, too; there is nothing to call,
    and the only operand is the result, or none where it is in a task's memory alone.
    """

    layer: str
    kernel: Kernel
    operands: tuple[Location, ...]
    joined: bool = False
    quantization: Quantization | None = None


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A workspace tensor. layout None: compact, its old contents do not matter; else buffers are
    shared only among equal layouts that hold their data in the same places, because every kernel
    counts on the zeros of a frame and none writes them again. fill: what a FillHalo writes there
    instead."""

    bytes: int
    layout: TensorLayout | None
    fill: int = 0


@dataclass
class Program:
    """Kernel calls of one network for one set of input shapes. input_shapes, output_shapes with
    dtypes, in order."""

    inputs: list[tuple[tuple[int, ...], str]]
    outputs: list[tuple[tuple[int, ...], str]]
    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)

    @property
    def calls(self) -> list[Step]:
        """The steps that call a kernel."""
        return [step for step in self.steps if not step.joined]

    def listing(self) -> str:
        """The program as text, for those who look for a mistake in it: tensors, then one call after
        the other with its operands."""
        ends = [f"input {i}: {shape} {dtype}" for i, (shape, dtype) in enumerate(self.inputs)]
        ends += [f"output {i}: {shape} {dtype}" for i, (shape, dtype) in enumerate(self.outputs)]
        buffers = [
            f"workspace {i}: {buffer.bytes} bytes, {buffer.layout or 'compact'}"
            for i, buffer in enumerate(self.buffers)
        ]
        return "\n".join([*ends, *buffers, *map(_call, self.steps)]) + "\n"


def _call(step: Step) -> str:
    # A joined step has no operands, or its result alone.
    names = (
        step.kernel.operands[-len(step.operands) :]
        if step.operands and step.joined
        else step.kernel.operands
    )
    places = [
        f"{name}={p.space} {p.index} + {p.offset}"
        for name, p in zip(names, step.operands, strict=False)
    ]
    return (
        f"{step.layer}: {'joined, ' if step.joined else ''}{', '.join(places)}\n    {step.kernel}"
    )


class WeightStore:
    """All constants of a library in one blob, cache-line aligned; equal arrays are stored once,
    whichever network uses them."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, tuple[int, ...], str], int] = {}
        self._arrays: dict[int, np.ndarray] = {}
        self.bytes = 0

    def add(self, array: np.ndarray) -> Location:
        """Place float32 or int32 values (other types as raw bytes); returns where they are."""
        array = np.ascontiguousarray(array)
        raw = array.reshape(-1).view("uint8")
        key = (raw.tobytes() if raw.size < 1 << 16 else _digest(raw), array.shape, str(array.dtype))
        if key not in self._known:
            self._known[key] = self.bytes
            padded = np.zeros(round_up(raw.size, LINE_BYTES), "uint8")
            padded[: raw.size] = raw
            self._arrays[self.bytes] = padded
            self.bytes += padded.size
        return Location(space="weights", offset=self._known[key])

    def array(self, location: Location, operand: Operand) -> np.ndarray:
        """The first values that were added there."""
        values: np.ndarray = self._arrays[location.offset].view(operand.dtype)[: operand.elements]
        return values

    def blob(self) -> np.ndarray:
        """Everything that was added, as the float32 array that entry points take."""
        arrays = list(self._arrays.values()) or [np.zeros(LINE_BYTES, "uint8")]
        return np.concatenate(arrays).view(BLOB)


def _digest(raw: np.ndarray) -> bytes:
    return hashlib.sha256(raw.tobytes()).digest()
