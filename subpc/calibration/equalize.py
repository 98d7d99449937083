"""Channels of a tensor get the same range: one scale for all of them then loses little.

A layer's output channel by s, and the next layer's weights of that channel by 1 / s, is the same
network, wherever what lies between them is the same function of s x by s: sums, ReLU, poolings. Each
output channel of a weight has a scale of its own, so that the factor costs the layer in front
nothing. Behind, it costs nothing where a depthwise convolution reads the channel; a dense layer has
one scale for weights of all its input channels, and gets a compromise.
(Nagel et al., arXiv 1906.04721, equalize weights; here it is activations that gain.)
"""

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from subpc.calibration.channels import Channels, scaled_weight
from subpc.calibration.ranges import TensorStatistics
from subpc.passes.dataflow import Dataflow, rewrite

# Share of the factor that would make the ranges of activations equal, where weights lose by it.
_BALANCE = 0.5
# No channel is scaled by more; ranges that were measured on few images are not known better.
_MOST = 64.0
# How much larger than what was measured a value may be before a bounded activation cuts it off.
_MARGIN = 1.25


def equalize(
    module: tvm.IRModule, statistics: Mapping[relax.Var, TensorStatistics]
) -> tvm.IRModule:
    """The same network with other scales of its channels, float weights as before.

    statistics: of the tensors that will be codes.
    """
    return rewrite(module, lambda graph: _equalize(graph, statistics))


def _equalize(graph: Dataflow, statistics: Mapping[relax.Var, TensorStatistics]) -> None:
    channels = Channels(graph)
    factors = _factors(channels, statistics)
    for layer in channels.layers:
        scaled_weight(graph, layer, factors[channels.read(layer)], factors[channels.of[layer]])


def _factors(channels: Channels, statistics: Mapping[relax.Var, TensorStatistics]) -> np.ndarray:
    """Of every channel of every tensor, by number; 1 where it has to stay as it is."""
    count = channels.count
    own, whole = np.zeros(count), np.zeros(count)
    for var, seen in statistics.items():
        numbers = channels.of.get(var)
        if numbers is not None:
            largest = np.maximum(seen.channel_high.numpy(), -seen.channel_low.numpy())
            np.maximum.at(own, numbers, largest)
            np.maximum.at(whole, numbers, largest.max(initial=0))
    free = ~channels.fixed & (own > 0)
    bounded = np.isfinite(channels.bound)
    whole = np.where(bounded, channels.bound, whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        equal = np.where(free, whole / own, 1.0)
        dense = channels.weight > 0
        wanted = np.where(dense, equal**_BALANCE * channels.weight ** (1 - _BALANCE), equal)
        most = np.where(bounded, whole / (own * _MARGIN), _MOST).clip(max=_MOST)
    least = np.where(bounded, 1.0, 1 / _MOST)
    factors = np.clip(wanted, least, np.maximum(most, least))
    return np.where(free, factors, 1.0)
