"""How far one network's scores are from another's."""

import torch
import torch.nn.functional as F


def divergence(scores: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(softmax(taught / T) || softmax(scores / T)), T the temperature, as a mean over the
    batch (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531, section 2).

    scores, taught: (n, classes), or (n, classes, ...), where every place counts as one of a batch;
    the square keeps the gradients as large as those of T = 1.
    """
    changed, wanted = (
        F.log_softmax(x.float().movedim(1, -1).flatten(0, -2) / temperature, 1)
        for x in (scores, taught)
    )
    apart = F.kl_div(changed, wanted, reduction="batchmean", log_target=True)
    return temperature**2 * apart
