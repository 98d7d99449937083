"""Which layer of a chain of convolutions is the low one."""

from torch import nn

from subpc.algorithms.network.pairing import LayerPair


def choose_pairs(
    pairs: tuple[LayerPair, ...], modules: dict[str, nn.Module]
) -> tuple[LayerPair, ...]:
    """Pairs that share no layer: low, high, low, high along a chain; a bottleneck's 3x3 is low and
    its last 1x1 compensates (figure 2)."""
    starts = {pair.first for pair in pairs}
    taken: set[str] = set()
    chosen = []
    for pair in pairs:
        narrow = _taps(modules[pair.first]) == 1 and _taps(modules[pair.second]) > 1
        if pair.first in taken or (narrow and pair.second in starts):
            continue
        chosen.append(pair)
        taken |= {pair.first, pair.second}
    return tuple(chosen)


def _taps(conv: nn.Module) -> int:
    assert isinstance(conv, nn.Conv2d)
    return conv.kernel_size[0] * conv.kernel_size[1]
