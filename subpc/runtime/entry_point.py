"""One function of a loaded library, and what each call of it needs for itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from subpc.library.report import FunctionInfo
from subpc.library.shared_library import Library
from subpc.machine import native
from subpc.machine.memory import address, aligned_empty, workspace

Array = npt.NDArray[Any]


class Lane:
    """What one call in flight needs for itself: a workspace and an argument list. Lanes are reused,
    so memory is mapped once."""

    def __init__(self, info: FunctionInfo, weights: Array) -> None:
        self.workspace = workspace(info.workspace_floats)
        # The arguments hold addresses only; this keeps the arrays behind them alive.
        self.bound: list[Array] = []
        floats = [([weights.size], weights), ([self.workspace.size], self.workspace)]
        # Entry points know no tensors without dimensions: a scalar is an array of one element to
        # them.
        tensors = [native.Tensor(t.shape or (1,), t.dtype) for t in (*info.inputs, *info.outputs)]
        self.arguments = native.Arguments(
            [*tensors, *(native.Tensor(shape, "float32") for shape, _ in floats)]
        )
        for index, (_, array) in enumerate(floats, start=len(tensors)):
            self.arguments.point(index, address(array))


class EntryPoint:
    """One function of the library, and its free lanes."""

    def __init__(self, library: Library, info: FunctionInfo, weights: Array, threads: int) -> None:
        self.info = info
        self.library = library
        self._function = library.function(info.symbol)
        self._weights = weights
        self._threads = threads
        # Taking and giving back are single operations of a list, so no lock is needed that a fork
        # could copy while it is held.
        self._free: list[Lane] = []

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane that no other call uses."""
        try:
            lane = self._free.pop()
        except IndexError:
            lane = Lane(self.info, self._weights)
        try:
            yield lane
        finally:
            lane.bound = []
            self._free.append(lane)

    def bind(self, lane: Lane, inputs: Sequence[Array]) -> list[Array]:
        """Point the lane at the inputs and at new outputs."""
        outputs: list[Array] = [aligned_empty(info.shape, info.dtype) for info in self.info.outputs]
        lane.bound = [*inputs, *outputs]
        for index, array in enumerate(lane.bound):
            lane.arguments.point(index, address(array))
        return outputs

    def steps(self, lane: Lane, first: int, last: int) -> None:
        """Run some steps on what the lane was bound to."""
        lane.arguments.steps(first, last)
        native.run(self._function, lane.arguments, self._threads)

    def call(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the whole network."""
        with self.lane() as lane:
            outputs = self.bind(lane, inputs)
            self.steps(lane, 0, len(self.info.steps))
        return outputs
