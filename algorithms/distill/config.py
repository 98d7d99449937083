"""Settings of distillation."""

from dataclasses import dataclass

from subpc.algorithms.config import Config, check_range
from subpc.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillConfig(Config):
    """How long a compressed network learns from the float one, and by what.

    steps, batch: of images, cut anew each time; minutes: where so many steps would take longer,
    fewer are made. rate: of Adam at the start, from where it falls to 0 as a cosine. features:
    weight of the layers' outputs beside the network's; temperature: of the network's scores.
    smallest_crop: the least share of an image's pixels that a cut keeps; mirror: whether half of
    the cuts are mirrored (not for text).
    """

    steps: int = 1000
    batch: int = 32
    minutes: float = 30.0
    rate: float = 3e-4
    features: float = 5.0
    temperature: float = 2.0
    smallest_crop: float = 0.25
    mirror: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in (("steps", 1 << 20), ("batch", 1 << 12)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(f"{name} is {value!r}; accepted: whole numbers from 1 to {most}.")
        check_range("minutes", self.minutes, 0.01, 60 * 24 * 30)
        check_range("rate", self.rate, 1e-9, 1)
        check_range("features", self.features, 0, 1e6)
        check_range("temperature", self.temperature, 1e-3, 1e3)
        check_range("smallest_crop", self.smallest_crop, 0.01, 1)
        check_range("seed", self.seed, 0, (1 << 20) - 1)
