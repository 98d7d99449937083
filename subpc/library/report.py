"""What a compiled library knows about itself: functions, steps, layers, decisions. Standard library
only."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from subpc.records import Record

FORMAT_VERSION = 3
# The kernel of a layer that no kernel family takes.
FALLBACK = "fallback"
# What a layer computes in.
FLOATS, INTEGERS = "float32", "int8"
# What a compile can be asked for: one of them, or for each layer the faster one that costs no
# accuracy.
MIXED = "auto"
PRECISIONS = (FLOATS, INTEGERS, MIXED)


@dataclass(frozen=True, kw_only=True)
class TensorInfo(Record):
    """One input or output of a function."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class ResultInfo(Record):
    """Where a step leaves its result, and what it computes besides: a residual addition, an
    activation ("none").

    Element (n, c, y, x) of `shape`, or (n, c), lies at offset + n * image + c * plane + first + y *
    pitch + x elements of `dtype` in the space, which is "workspace" or "output" `index`. dtype:
    "float32", or "uint8" for codes, which stand for scale * (code - zero_point).
    """

    space: str
    index: int
    offset: int
    shape: tuple[int, ...]
    image: int
    plane: int
    first: int
    pitch: int
    residual: bool
    activation: str
    dtype: str = "float32"
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True)
class StepInfo(Record):
    """One kernel call; `layer` is the layer's name in the original model. flops: useful ones;
    bytes: read and written.

    result: None where the kernel does not say how its result is laid out.
    """

    layer: str
    kernel: str
    family: str
    flops: int
    bytes: int
    result: ResultInfo | None = None


@dataclass(frozen=True, kw_only=True)
class FunctionInfo(Record):
    """One entry point of a library: the network for one set of input shapes."""

    symbol: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    workspace_floats: int
    steps: tuple[StepInfo, ...]


@dataclass(frozen=True, kw_only=True)
class LayerReport(Record):
    """What was decided about one layer, and why.

    kind: "conv" or "linear"; kernel: a family, or FALLBACK; shape: (out, in, kh, kw), in any layout
    in the fallback;
    pattern: "dense", "1x16 uniform" or "1x16 layer-wise"; n: block size, 0 when dense; sparsity:
    share of weights that are zero;
    reason: "" for a sparse layer without remarks, else a short phrase that
    the summary line counts ("below threshold", "grouped"), with details after a colon;
    expected_gain: dense time / chosen time. blocks: which of the (out / n, in) blocks the pattern
    keeps, as `subpc.library.block_map` packs them; "" without a pattern. bits: width of the weights
    in the model file. precision: what it computes in, "float32" or "int8"; why_float: why not in
    the latter, where other layers do; why_integers: why in the latter, where that was chosen;
    bytes_dense: of float32 weights without a pattern;
    bytes_packed: of those in the library.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    pattern: str
    n: int
    sparsity: float
    kernel: str
    sparse: bool
    reason: str
    expected_gain: float
    flops_dense: int
    flops_useful: int
    bytes_dense: int
    bytes_packed: int
    blocks: str = ""
    bits: int = 32
    precision: str = FLOATS
    why_float: str = ""
    why_integers: str = ""


def precision_of(layers: Sequence[LayerReport]) -> str:
    """What a network computes in: "int8" where any layer does, else "float32"."""
    return INTEGERS if any(layer.precision == INTEGERS for layer in layers) else FLOATS


@dataclass(frozen=True, kw_only=True)
class Metadata(Record):
    """Everything that a library carries beside code and weights.

    precision: as `precision_of` says; features: CPU flags as in /proc/cpuinfo; compression: what
    the compressed model file says of how it was made, accuracy included.
    """

    model: str
    target: str
    features: tuple[str, ...]
    precision: str
    tuned: bool
    functions: tuple[FunctionInfo, ...]
    layers: tuple[LayerReport, ...]
    format_version: int = FORMAT_VERSION
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    compression: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """The readable view of a library's metadata."""

    metadata: Metadata

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """One entry for each layer that a decision was made about, in model order."""
        return self.metadata.layers

    @property
    def convs(self) -> tuple[LayerReport, ...]:
        """The convolutions among the layers."""
        return tuple(layer for layer in self.layers if layer.kind == "conv")

    @property
    def in_fallback(self) -> tuple[LayerReport, ...]:
        """The layers that no kernel of ours computes."""
        return tuple(layer for layer in self.layers if layer.kernel == FALLBACK)

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights of all convolutions."""
        sizes = [layer.bytes_dense for layer in self.convs]
        zeros = sum(layer.sparsity * size for layer, size in zip(self.convs, sizes, strict=True))
        return zeros / sum(sizes) if sum(sizes) else 0.0

    @property
    def headline(self) -> str:
        """The line that every report starts with: sparsity, N, precision, tuned or not."""
        blocks = sorted({layer.n for layer in self.layers if layer.sparse})
        names = ",".join(str(n) for n in blocks) if blocks else "-"
        state = "tuned" if self.metadata.tuned else "untuned"
        facts = f"{self.sparsity:.0%} sparse, N={names}, {self.precision}, {state}"
        return f"{self.metadata.model}: {facts}, {self.metadata.target}"

    @property
    def precision(self) -> str:
        """What the network computes in, and in how many of its layers where that is not all."""
        count = sum(layer.precision == INTEGERS for layer in self.layers)
        mixed = 0 < count < len(self.layers)
        return self.metadata.precision + (f" in {count} of {len(self.layers)} layers" * mixed)

    @property
    def in_floats(self) -> str:
        """Why layers of a network of integers compute floats, each reason with their number and
        without what it says in brackets of one layer; "" where none does."""
        if self.metadata.precision != INTEGERS:
            return ""
        left = [layer for layer in self.layers if layer.precision != INTEGERS]
        reasons = Counter(
            layer.why_float.split(" (")[0] or layer.reason.split(":")[0] or "no reason given"
            for layer in left
        )
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return f"; {len(left)} in {FLOATS}: {listed}" if left else ""

    @property
    def summary(self) -> str:
        """How many convolutions run sparse, and why the others do not; how many layers have no
        kernel of ours, or compute floats where others do not."""
        dense = [layer for layer in self.convs if not layer.sparse]
        if not self.convs:
            return (
                f"no convolutions, {len(self.layers)} fully connected layers"
                + self._fallback_count
                + self.in_floats
            )
        text = f"{len(self.convs) - len(dense)}/{len(self.convs)} convs sparse, {len(dense)} dense"
        reasons = Counter(layer.reason.split(":")[0] or "no reason given" for layer in dense)
        text += (
            ": " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            if dense
            else ""
        )
        return text + self._fallback_count + self.in_floats

    @property
    def _fallback_count(self) -> str:
        return f"; {len(self.in_fallback)} in the fallback" if self.in_fallback else ""

    def to_dict(self) -> dict[str, Any]:
        """The metadata and both lines, for --json."""
        return {"headline": self.headline, "summary": self.summary, **self.metadata.to_dict()}

    def __str__(self) -> str:
        return f"{self.headline}\n{self.summary}"
