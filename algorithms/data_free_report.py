"""What a data-free method did to each layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from subpc.algorithms.quantizers import Quantized


@dataclass(kw_only=True)
class LayerResult:
    """One layer: relative error of the filters before and after reconstruction, range of the coefficients, bytes on disk.

    sparsity: share of blocks that are zero; kept counts filters, which 1xN pruning keeps all.
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


@dataclass(frozen=True, kw_only=True)
class DataFreeReport:
    """Layers in the network's order, and bytes of all weights, batch norms and offsets together."""

    method: str
    layers: tuple[LayerResult, ...]
    bytes: int
    inputs: str = "none"

    @classmethod
    def of(
        cls, method: str, model: nn.Module, codes: Mapping[str, Quantized], results: Mapping[str, LayerResult], inputs: str = "none"
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
