"""How ONNX resamples one axis: where each new pixel lies in the old ones, and how much of each it
takes.

In float64, as ONNX's reference computes. Where it and ONNX Runtime differ, the operator's
definition decides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from subpc.frontend.from_onnx.graph import NodeError

_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
_PLACES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)
_CROP, _TF_NEAREST = "tf_crop_and_resize", "tf_half_pixel_for_nn"
_MODES = {"nearest": 0, "linear": 1, "cubic": 2}  # how far a filter reaches
_POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """The attributes of a Resize. old: of a version that had but a mode; fill: what lies outside of
    the image has this value."""

    old: bool

    mode: str
    place: str
    rounding: str
    policy: str
    cubic: float
    fill: float
    exclude_outside: bool
    antialias: bool

    @property
    def crops(self) -> bool:
        return self.place == _CROP

    @property
    def copies_pixels(self) -> bool:
        """Whether growing by whole factors only repeats each pixel."""
        corner = self.place in ("asymmetric", _TF_NEAREST) and self.rounding == "floor"
        centre = self.place in ("half_pixel", "half_pixel_symmetric") and self.rounding.startswith(
            "round"
        )
        return self.mode == "nearest" and (corner or centre)

    @property
    def is_bilinear(self) -> bool:
        return (
            self.mode == "linear"
            and self.place in ("half_pixel", "half_pixel_symmetric")
            and not self.exclude_outside
        )

    def places(
        self, extent: int, size: int, factor: float, span: tuple[float, float]
    ) -> np.ndarray:
        """(size,): where each new pixel lies, counted in old ones; span is the region that is cut
        out."""
        new, width = np.arange(size, dtype=np.float64), factor * extent
        start, end = span
        if self.place == "align_corners":
            return new * ((extent - 1) / (width - 1)) if width != 1 else np.zeros(size)
        if self.place == _CROP:
            middle = np.full(size, (start + end) * (extent - 1) / 2)
            return (
                start * (extent - 1) + new * ((end - start) * (extent - 1) / (size - 1))
                if size > 1
                else middle
            )
        if self.place == "pytorch_half_pixel" and size == 1:
            return np.zeros(1)
        offset = extent / 2 * (1 - size / width) if self.place == "half_pixel_symmetric" else 0.0
        if self.old:  # there is no definition but ONNX Runtime's code, which divides in float32
            return np.asarray(new.astype(np.float32) / np.float32(factor), np.float64)
        if self.place == "asymmetric":
            return new / factor
        return offset + (new + 0.5) / factor - (0.0 if self.place == _TF_NEAREST else 0.5)

    def inside(self, places: np.ndarray, extent: int) -> np.ndarray:
        """Which new pixels lie in the image; only a region that is cut out reaches beyond it.

        places: (size,), in old pixels; the result: (size,), bool.
        """
        return (places >= 0) & (places <= extent - 1) if self.crops else np.ones(len(places), bool)


def options_of(attrs: dict[str, Any], old: bool) -> Resampling:
    """The attributes of a node; ValueError for what ONNX does not know."""
    a = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
    options = Resampling(
        old=old,
        mode=a.get("mode", "nearest").replace("bilinear", "linear"),
        place="asymmetric" if old else a.get("coordinate_transformation_mode", "half_pixel"),
        rounding="floor" if old else a.get("nearest_mode", "round_prefer_floor"),
        policy=a.get("keep_aspect_ratio_policy", "stretch"),
        cubic=float(a.get("cubic_coeff_a", -0.75)),
        fill=float(a.get("extrapolation_value", 0.0)),
        exclude_outside=bool(a.get("exclude_outside", 0)),
        antialias=bool(a.get("antialias", 0)),
    )
    accepted = (*_PLACES, _CROP, _TF_NEAREST)
    for value, known in (
        (options.mode, _MODES),
        (options.place, accepted),
        (options.rounding, _ROUNDINGS),
        (options.policy, _POLICIES),
    ):
        if value not in known:
            raise NodeError(f"{value!r}; accepted: {', '.join(known)}")
    if options.place == _TF_NEAREST and options.mode != "nearest":
        raise NodeError(f"{_TF_NEAREST} is for mode=nearest")
    return options


def pixels_along(options: Resampling, places: np.ndarray, extent: int, factor: float) -> np.ndarray:
    """(size,): the old pixel that each new one is a copy of.

    places: (size,), in old pixels; extent: old pixels along the axis; factor: new ones by old ones.
    """
    rounding = (
        "ceil" if options.old and factor < 1 else options.rounding
    )  # so did Resize of opset 10 shrink
    return np.asarray(np.clip(_ROUNDINGS[rounding](places), 0, extent - 1), np.int64)


def matrix_along(options: Resampling, places: np.ndarray, extent: int, factor: float) -> np.ndarray:
    """(size, extent): how much of each old pixel is in each new one."""
    stretch = max(1.0, 1 / factor) if options.antialias else 1.0
    reach = math.ceil(_MODES[options.mode] * stretch)
    first = np.floor(places)
    taps = first[:, None] + np.arange(1 - reach, reach + 1)  # (size, 2 reach)
    distances = np.abs(taps - places[:, None]) / stretch
    weights = (
        np.maximum(1 - distances, 0)
        if options.mode == "linear"
        else _cubic(distances, options.cubic)
    )
    if options.exclude_outside:
        weights = np.where((taps < 0) | (taps >= extent), 0.0, weights)
    if options.exclude_outside or stretch > 1:
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    matrix = np.zeros((len(places), extent))
    rows = np.broadcast_to(np.arange(len(places))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, extent - 1).astype(np.int64)), weights)
    return matrix


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
