"""What the rows of the speed tables measure: networks with seeded weights, pruned in 1xN blocks."""

from dataclasses import dataclass

from torch import nn

from subpc.demo.random_networks import prune_uniform, seeded_model, set_statistics

SPARSITIES = (0.0, 0.5, 0.75, 0.9)


@dataclass(frozen=True, kw_only=True)
class PrunedRow:
    """A network and how it is pruned: all convolutions but the first, MobileNetV2's 1x1 ones."""

    network: str
    sparsity: float
    n: int = 16
    layerwise: bool = False
    side: int = 224

    @property
    def key(self) -> str:
        """Its name in tables and in the file of results."""
        pattern = f"N={self.n}{' layer-wise' if self.layerwise else ''}"
        return f"{self.network} {self.sparsity:.0%}" + (f" {pattern}" if self.sparsity else "")

    def dense(self) -> nn.Module:
        """The network before it is pruned."""
        return seeded_model(self.network)

    def model(self) -> nn.Module:
        """The network, whose results depend on its images of side x side."""
        model = self.dense()
        if self.sparsity:
            prune_uniform(
                model,
                n=self.n,
                sparsity=self.sparsity,
                pointwise_only=self.network.startswith("mobilenet"),
                layerwise=self.layerwise,
            )
        return set_statistics(model, (1, 3, self.side, self.side))
