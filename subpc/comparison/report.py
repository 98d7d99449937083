"""What a comparison of two models found."""

from dataclasses import dataclass

from subpc.machine.timing import Timing
from subpc.records import Record


@dataclass(frozen=True, kw_only=True)
class SideInfo(Record):
    """One of the two models. kind: "library", "PyTorch" or "ONNX"; engine: what ran it; failure:
    why it could not be timed."""

    name: str
    kind: str
    engine: str
    file_bytes: int
    timing: Timing | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputError(Record):
    """One output of b against a's, over all samples.

    top1: share of samples with the same largest value; kl: mean Kullback-Leibler divergence of
    softmax(b) from softmax(a), in nats; both None where the output is no row of scores. max_error,
    mean_error: absolute; relative: norm of the difference / norm of a.
    equal: share of elements that are the same, for class numbers and masks; None for floating-point
    numbers.
    """

    name: str
    shape: tuple[int, ...]
    top1: float | None
    kl: float | None
    max_error: float
    mean_error: float
    relative: float
    equal: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerError(Record):
    """One layer of b against a's. relative: norm of the difference / norm of a; rise: that minus
    the layer before; both None where the layers cannot be compared, for the reason in `note`."""

    layer: str
    relative: float | None
    max_error: float | None
    rise: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(Record):
    """Two models side by side; a is the reference. data: where the samples came from;
    layer_samples: of them, for the layers.

    by_order: layers whose names differ, and that were matched by their order.
    """

    a: SideInfo
    b: SideInfo
    data: str
    samples: int
    layer_samples: int
    outputs: tuple[OutputError, ...]
    layers: tuple[LayerError, ...]
    skipped: dict[str, str]
    by_order: tuple[str, ...] = ()

    @property
    def worst(self) -> LayerError | None:
        """The layer where the error rises most: where to look first."""
        risen = [layer for layer in self.layers if layer.rise is not None]
        return max(risen, key=lambda layer: layer.rise or 0.0, default=None)

    @property
    def speed_ratio(self) -> float | None:
        """Median time of a / median time of b: above 1, b is faster."""
        if self.a.timing is None or self.b.timing is None:
            return None
        return self.a.timing.p50 / self.b.timing.p50

    @property
    def verdict(self) -> str:
        """The comparison in one line."""
        first = self.outputs[0]
        parts = (
            [f"same best class on {first.top1:.1%} of {self.samples} samples"]
            if first.top1 is not None
            else []
        )
        equal = (
            f"{first.equal:.2%} of the elements of {first.name} are equal"
            if first.equal is not None
            else ""
        )
        parts.append(equal or f"outputs differ by {first.relative:.2g} of their size")
        worst = self.worst
        if worst is not None and worst.relative is not None:
            parts.append(f"the error rises most at {worst.layer} (to {worst.relative:.2g})")
        ratio = self.speed_ratio
        if ratio is not None:
            parts.append(
                f"b is {ratio:.2f} times as fast as a"
                if ratio >= 1
                else f"b is {1 / ratio:.2f} times SLOWER than a"
            )
        return "; ".join(parts)
