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
# Images in a step, and the values that all layers give for them together, in bytes.
_BATCH, _FEWEST, _VALUES = 128, 16, 256 << 20
# What matching may cost unasked, in multiplications of forward passes (a step takes three times as
# many), and in bytes of the values of _FEWEST images; how many images, and the most and the fewest
# steps. Fewer than _ENOUGH steps are twice as long.
_WORK, _ROOM = 30e9, 64 << 20
_IMAGES, _MOST, _LEAST, _ENOUGH = 64, 100, 10, 50


def moved(
    model: nn.Module, images: torch.Tensor, progress: Progress = silent
) -> torch.Tensor | None:
    """Some of the random images (p, c, h, w), matched in as many steps as cost a few seconds; None
    where the network is too large for that, has no batch norms, or has no derivative."""
    norms = [m for m in model.modules() if _tells(m)]
    if not norms:
        return None
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images = images[order[:_IMAGES]]
    work, values = _cost(model, images[:1])
    steps = min(_MOST, int(_WORK / max(1, work * len(images))))
    if steps < _LEAST or values * _FEWEST > _ROOM:
        return None
    rate = _RATE if steps >= _ENOUGH else 2 * _RATE
    try:
        found = match(model, images, steps, progress, rate=rate)
    except RuntimeError:  # operators without a derivative, as PyTorch tells
        return None
    return found if bool(found.isfinite().all()) else None


def _cost(model: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Multiplications of the network's layers for one image, and bytes of what all modules give."""
    work = values = 0

    def count(module: nn.Module, _: object, output: object) -> None:
        nonlocal work, values
        if isinstance(output, torch.Tensor):
            values += output.nbytes
            if isinstance(module, nn.Conv2d | nn.Linear):
                work += output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return work, values


def _tells(module: nn.Module) -> bool:
    """Whether the module is a batch norm that knows what it saw in training."""
    return isinstance(module, nn.BatchNorm2d) and module.running_var is not None


def match(
    model: nn.Module,
    images: torch.Tensor,
    steps: int,
    progress: Progress = silent,
    *,
    rate: float = _RATE,
) -> torch.Tensor:
    """Images (p, c, h, w) after `steps` of Adam on the distance between what each batch norm gets
    and its running statistics.

    The distance of a layer is the mean over channels of ((mean - running mean) / deviation)^2 +
    (deviation / running deviation - 1)^2 (ZeroQ, arXiv 2001.00281, equation 3, in units of the
    deviation, so that layers weigh the same).
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    norms = [m for m in model.modules() if _tells(m)]
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
    together = max(_FEWEST, min(_BATCH, _VALUES // max(1, _cost(model, images[:1])[1])))
    batches = [batch.clone() for batch in torch.split(images, together)]
    if len(batches) > 1 and len(batches[-1]) < 2:
        batches[-2:] = [torch.cat(batches[-2:])]
    with torch.enable_grad():
        for index, batch in enumerate(batches):
            batch.requires_grad_(True)
            optimizer = torch.optim.Adam([batch], lr=rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for step in range(steps):
                progress("matching images", index * steps + step, len(batches) * steps)
                distances.clear()
                optimizer.zero_grad()
                model(batch.clone())  # which some networks write over
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
