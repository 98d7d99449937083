"""Networks of more than one input, and of inputs and outputs that are no floating-point numbers."""

import torch
from torch import nn


class Masked(nn.Module):
    """An image, a mask, and class numbers that may be left out; features by name, and which is the
    largest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.area, self.classes = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(1, 8, 1),
            nn.Embedding(2, 8),
        )

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        y = self.stem(image).relu() * self.area(mask)
        if ids is not None:
            y = y + self.classes(ids).mean(1)[:, :, None, None]
        return {"features": y, "largest": y.argmax(1)}


class Camera(nn.Module):
    """Bytes as a camera gives them, height by width by channels; scores for each pixel, the best,
    and whether it is likely."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.head(self.stem(x.permute(0, 3, 1, 2).float() / 255).relu())
        return y.argmax(1), y.amax(1) > 0.1, y


def masked() -> nn.Module:
    """What --arch names."""
    torch.manual_seed(0)
    return Masked().eval()


def camera() -> nn.Module:
    """What --arch names."""
    torch.manual_seed(0)
    return Camera().eval()


MASKED, CAMERA = f"{__name__}:masked", f"{__name__}:camera"
IMAGE, MASK = (1, 3, 12, 10), (1, 1, 12, 10)
EXAMPLES = (torch.rand(IMAGE), torch.rand(MASK))
FRAME = torch.randint(0, 256, (1, 12, 10, 3), dtype=torch.uint8)
