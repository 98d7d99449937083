"""Images made from a network alone: random ones, optimised until the inputs of its batch norms have
the running statistics."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from subpc.errors import UnsupportedModelError
from subpc.progress import Progress, silent

MAX_IMAGES = 4096
_RATE = 0.1
_BATCH = 128


def match(
    model: nn.Module, images: torch.Tensor, steps: int, progress: Progress = silent
) -> torch.Tensor:
    """Images (p, c, h, w) after `steps` of Adam on the distance between what each batch norm gets
    and its running statistics.

    The distance of a layer is the mean over channels of ((mean - running mean) / deviation)^2 +
    (deviation / running deviation - 1)^2 (ZeroQ, arXiv 2001.00281, equation 3, in units of the
    deviation, so that layers weigh the same).
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    norms = [
        m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None
    ]
    if not norms:
        raise UnsupportedModelError(
            "The network has no batch norm whose statistics images could be matched to.\nChoose 0"
            " steps."
        )
    distances: list[torch.Tensor] = []
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda module, inputs: distances.append(_distance(module, inputs[0]))
        )
    batches = [batch.clone() for batch in torch.split(images, _BATCH)]
    if len(batches) > 1 and len(batches[-1]) < 2:
        batches[-2:] = [torch.cat(batches[-2:])]
    with torch.enable_grad():
        for index, batch in enumerate(batches):
            batch.requires_grad_(True)
            optimizer = torch.optim.Adam([batch], lr=_RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for step in range(steps):
                progress("matching images", index * steps + step, len(batches) * steps)
                distances.clear()
                optimizer.zero_grad()
                model(batch)
                torch.stack(distances).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return torch.cat([batch.detach() for batch in batches])


def _distance(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    assert (
        isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
        and norm.running_var is not None
    )
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    expected = norm.running_var + norm.eps
    return (F.mse_loss(mean / expected.sqrt(), norm.running_mean / expected.sqrt())) + (
        ((variance + norm.eps) / expected).sqrt() - 1
    ).square().mean()
