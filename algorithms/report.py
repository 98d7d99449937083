"""What a data-free method did to each layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import nn

from subpc.algorithms.numerics.quantizers import Quantized


@dataclass(kw_only=True)
class LayerResult:
    """One layer: relative error of the filters before and after reconstruction, range of the
    coefficients, bytes on disk.

    sparsity: share of blocks that are zero; kept counts filters, which 1xN pruning keeps all. snr:
    signal to noise of the layer's output in dB, both networks run on the same random input; None
    where it was not measured, or where filters went, which leaves nothing to compare before the
    next layer.
    """

    name: str
    filters: int
    kept: int
    bits: int = 32
    error_before: float = 0.0
    error_after: float = 0.0
    coefficients: tuple[float, float] = (1.0, 1.0)
    bytes: int = 0
    reason: str = ""
    sparsity: float = 0.0
    snr: float | None = None

    def lean(self) -> dict[str, Any]:
        """What differs from the defaults, numbers to four digits: for the report inside a file."""
        facts = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }
        return {key: _rounded(value) for key, value in facts.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@dataclass(frozen=True, kw_only=True)
class DataFreeReport:
    """Layers in the network's order, and what the file takes.

    bytes: of all tensors together; file_bytes: of the file, which holds names, settings and this
    report too (0 where none was written). inputs: which images were used. notes: what a reader
    should know. search: how the settings were found, where they were.
    """

    method: str
    layers: tuple[LayerResult, ...]
    bytes: int
    inputs: str = "none"
    file_bytes: int = 0
    notes: tuple[str, ...] = ()
    search: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        method: str,
        model: nn.Module,
        codes: Mapping[str, Quantized],
        results: Mapping[str, LayerResult],
        inputs: str = "none",
    ) -> "DataFreeReport":
        """Count the bytes of `model` with its quantized layers packed."""
        total = 0
        for key, tensor in model.state_dict().items():
            layer, _, kind = key.rpartition(".")
            packed = kind == "weight" and layer in codes
            size = codes[layer].nbytes if packed else tensor.numel() * tensor.element_size()
            total += size
            if layer in results:
                results[layer].bytes += size
        return cls(method=method, layers=tuple(results.values()), bytes=total, inputs=inputs)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON takes."""
        return asdict(self)

    def lean(self) -> dict[str, Any]:
        """The same without what can be left out: for the file."""
        facts = {
            "method": self.method,
            "bytes": self.bytes,
            "inputs": self.inputs,
            "layers": [layer.lean() for layer in self.layers],
        }
        if self.search:
            facts["search"] = {key: value for key, value in self.search.items() if key != "trials"}
        return facts
