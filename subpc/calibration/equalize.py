"""Channels of a tensor get the same range: one scale for all of them then loses little.

A layer's output channel by s, and the next layer's weights of that channel by 1 / s, is the same
network, wherever what lies between them is the same function of s x by s: sums, ReLU, poolings.
Each output channel of a weight has a scale of its own, so that the factor costs the layer in front
nothing. Behind, it costs nothing where a depthwise convolution reads the channel; a dense layer has
one scale for the weights of all its input channels, and gets a compromise. (Nagel et al., arXiv
1906.04721, equalize the ranges of weights; here it is those of activations.) Channels that an
activation cuts off at a bound, as ReLU6 does, stay: what hardly fires on the images that were seen
would be scaled until it is cut off on others.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from tvm import relax

from subpc.calibration.channels import Channels, scaled_weight
from subpc.calibration.ranges import TensorStatistics
from subpc.passes.dataflow import Dataflow

# Share of the factor that would make the ranges of activations equal, where weights lose by it.
_BALANCE = 0.5
# No channel is scaled by more; what was measured on few images is not known better.
_MOST = 64.0


def equalizing_factors(
    graph: Dataflow, statistics: Mapping[relax.Var, TensorStatistics]
) -> dict[relax.Var, Tensor]:
    """What to multiply the channels of each tensor by, (C,) float64.

    statistics: of the tensors that will be codes.
    """
    channels = Channels(graph)
    factors = torch.from_numpy(_factors(channels, statistics))
    return {var: factors[torch.from_numpy(numbers)] for var, numbers in channels.of.items()}


def scale_channels(graph: Dataflow, factors: Mapping[relax.Var, Tensor]) -> None:
    """Change the weights so that the channels of each tensor are what they were by these factors,
    and the results what they were."""
    for layer in Channels(graph).layers:
        x = graph.resolve(graph.exprs[layer].args[0])
        scaled_weight(graph, layer, factors[x].numpy(), factors[layer].numpy())


def _factors(channels: Channels, statistics: Mapping[relax.Var, TensorStatistics]) -> np.ndarray:
    """Of every channel of every tensor, by number; 1 where it has to stay as it is."""
    own, whole = np.zeros(channels.count), np.zeros(channels.count)
    for var, seen in statistics.items():
        numbers = channels.of.get(var)
        if numbers is not None:
            largest = torch.maximum(seen.channel_high, -seen.channel_low).double().numpy()
            np.maximum.at(own, numbers, largest)
            np.maximum.at(whole, numbers, largest.max(initial=0))
    free = ~channels.fixed & (own > 0)
    own = np.where(free, own, 1.0)
    equal, dense = np.where(free, whole, 1.0) / own, channels.weight > 0
    wanted = np.where(dense, equal**_BALANCE * channels.weight ** (1 - _BALANCE), equal)
    return np.where(free, np.clip(wanted, 1 / _MOST, _MOST), 1.0)
