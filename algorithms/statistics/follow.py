"""A network and its changed copy run side by side, layer by layer, on images or without: the inputs
of each layer in both."""

from collections.abc import Mapping

import torch
from torch import fx, nn

from subpc.algorithms.statistics.image_run import ImageRun
from subpc.algorithms.statistics.moments import AtLayer, AtNorm, KeptOfLayer
from subpc.algorithms.statistics.normal_run import run_fields


def run_side_by_side(
    graph: fx.Graph,
    networks: tuple[nn.Module, nn.Module],
    images: torch.Tensor | None,
    at_layer: AtLayer,
    *,
    correct: bool,
    at_norm: AtNorm | None = None,
    kept: Mapping[str, KeptOfLayer] | None = None,
) -> None:
    """Follow the reference and the changed network and let `at_layer` change each layer of the
    second before it runs.

    images (p, c, h, w): normalised, and need not be natural: the reference normalises with the
    statistics of the batch, so that behind each batch norm every channel has the mean and deviation
    that the real one has, and what the images add is how channels and pixels go together. None: the
    same from weights and batch norms alone, see run_fields. correct: give the changed batch norms,
    and offsets where there is none, the statistics of the changed network. kept: layers and batch
    norms that have fewer channels in the second network from the start, which needs images.
    """
    if images is None:
        assert not kept
        run_fields(graph, networks, at_layer, correct=correct, at_norm=at_norm)
    else:
        ImageRun(graph, networks, at_layer, at_norm, correct, kept).run(images)
