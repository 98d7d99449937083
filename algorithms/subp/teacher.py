"""Training with a teacher: a trained network whose scores the student is to give, beside the labels
(Hinton, Vinyals and Dean, 2015, arXiv 1503.02531)."""

import torch
from torch import nn

from subpc.algorithms.numerics.divergence import divergence
from subpc.errors import ConfigError


class Teacher:
    """A network that only answers; on `device`, in eval mode, without gradients.

    share: of the loss that is the teacher's, 0 to 1; temperature: both networks' scores are divided
    by it, so that small ones count.
    """

    def __init__(self, model: nn.Module, *, share: float, temperature: float, device: str) -> None:
        self._model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._share, self._temperature = share, temperature

    def check(self, image: torch.Tensor, classes: int) -> None:
        """ConfigError unless the network gives (1, classes) finite scores for an image
        (1, c, h, w)."""
        with torch.no_grad():
            try:
                scores = self._model(image)
            except (RuntimeError, ValueError, TypeError) as error:
                raise ConfigError(
                    f"The teacher does not take images of {tuple(image.shape[1:])}; it has to take"
                    " those that the network is trained on."
                ) from error
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        if got != (1, classes):
            raise ConfigError(
                f"The teacher gives {got} for one image; (1, {classes}), a score for each class of"
                " the network, is accepted."
            )
        if not bool(scores.isfinite().all()):
            raise ConfigError("The teacher's scores are not finite; its weights may be damaged.")

    def loss(
        self, images: torch.Tensor, scores: torch.Tensor, by_labels: torch.Tensor
    ) -> torch.Tensor:
        """(1 - share) by_labels + share D, with D the divergence from the teacher's scores at the
        temperature.

        images: (n, c, h, w); scores: the student's, (n, classes); by_labels: its loss, a scalar.
        """
        with torch.no_grad():
            taught = self._model(images)
        apart = divergence(scores, taught, self._temperature)
        return (1 - self._share) * by_labels + self._share * apart
