"""ONNX's poolings by their definition."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """One node; the second axis and those behind it have a window of 2 and a stride of 2."""

    op: str
    kernel: int
    stride: int
    dilation: int = 1
    name: str = "NOTSET"
    pads: tuple[int, int] = (0, 0)
    ceil: int = 0
    counted: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)

    def node(self, rank: int, output: str) -> onnx.NodeProto:
        first = {"kernel_shape": self.kernel, "strides": self.stride, "dilations": self.dilation}
        rest = {"kernel_shape": 2, "strides": 2, "dilations": 1}
        a: dict[str, Any] = {
            key: [value] + [rest[key]] * (rank - 1) for key, value in first.items()
        }
        if self.dilation == 1:
            del a["dilations"]
        a |= {"ceil_mode": 1} if self.ceil else {}
        a |= {"count_include_pad": 1} if self.counted else {}
        a |= {"auto_pad": self.name} if self.name != "NOTSET" else {"pads": self.padding(rank)}
        return helper.make_node(self.op, ["x"], [output], **a, **self.attributes)

    def padding(self, rank: int) -> list[int]:
        return [self.pads[0], *[0] * (rank - 1), self.pads[1], *[0] * (rank - 1)]

    def expected(self, x: np.ndarray) -> np.ndarray:
        """What the operators' definition says, one window after the other, in float64."""
        rank, padding = x.ndim - 2, self.padding(x.ndim - 2)
        axes = [
            along(
                x.shape[2 + i],
                (self.kernel if i == 0 else 2),
                (self.stride if i == 0 else 2),
                (self.dilation if i == 0 else 1),
                self,
                padding[i],
                padding[i + rank],
            )
            for i in range(rank)
        ]
        result = np.zeros((*x.shape[:2], *map(len, axes)))
        for place in itertools.product(*map(range, result.shape[2:])):
            taps, counts = zip(*(axes[i][n] for i, n in enumerate(place)), strict=True)
            window = x.astype(np.float64)[
                np.ix_(range(x.shape[0]), range(x.shape[1]), *taps)
            ].reshape(*x.shape[:2], -1)
            result[(slice(None), slice(None), *place)] = (
                window.max(-1) if self.op == "MaxPool" else window.sum(-1) / np.prod(counts)
            )
        return result


def along(
    n: int, k: int, s: int, d: int, case: Pooling, before: int, after: int
) -> list[tuple[list[int], int]]:
    """For every window along an axis, the places that it reads, and how many a mean divides by."""
    span = (k - 1) * d + 1
    if case.name.startswith("SAME"):
        total = max((-(-n // s) - 1) * s + span - n, 0)
        before = total // 2 if case.name == "SAME_UPPER" else total - total // 2
        after, count = total - before, -(-n // s)
    else:
        room = n + before + after - span
        count = (-(-room // s) if case.ceil else room // s) + 1
        # Windows that would start behind the image are left out.
        count -= case.ceil and (count - 1) * s >= n + before
    found = []
    for i in range(count):
        places = [i * s - before + t * d for t in range(k)]
        inside = [p for p in places if 0 <= p < n]
        found.append(
            (inside, sum(-before <= p < n + after for p in places) if case.counted else len(inside))
        )
    return found
