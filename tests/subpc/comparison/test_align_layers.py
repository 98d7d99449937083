"""Which value behind a layer is the one that a library computes in it."""

import numpy as np
import pytest

from subpc.comparison.align_layers import fused_stage
from subpc.frontend.trace import TracedValue
from subpc.library.report import ResultInfo


def found(
    kinds: str, *, residual: bool = False, activation: str = "none", dtype: str
) -> int | None:
    """The place of the value that is taken from a chain of stages."""
    stages = tuple(
        TracedValue(kind=kind, value=np.full((1, 1), place, np.float32))
        for place, kind in enumerate(kinds.split())
    )
    layout = {"space": "workspace", "index": 0, "offset": 0, "shape": (1, 1), "image": 1}
    info = ResultInfo(
        **layout, plane=1, first=0, pitch=1, residual=residual, activation=activation, dtype=dtype
    )
    value = fused_stage(stages, info)
    return None if value is None else int(value[0, 0])


@pytest.mark.parametrize(
    ("kinds", "fused", "place"),
    [
        ("layer", {}, 0),
        ("layer affine affine other", {}, 2),
        ("layer affine other affine", {"activation": "relu"}, 2),
        ("layer affine add other other", {"residual": True, "activation": "relu"}, 3),
        ("layer add affine other", {"residual": True, "activation": "relu"}, None),
        ("layer affine other", {"residual": True}, None),
        ("layer affine", {"activation": "relu"}, None),
        # A library that computes floats reads no roundings into its layers.
        ("layer affine codes rounded", {}, 1),
    ],
)
def test_floats(kinds: str, fused: dict[str, object], place: int | None) -> None:
    assert found(kinds, dtype="float32", **fused) == place  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "fused", "place"),
    [
        # The reference may have no roundings at all.
        ("layer affine other", {"activation": "relu"}, 2),
        ("layer affine codes rounded", {}, 3),
        # A ReLU that the codes' lower end computes is in the rounded value alone.
        ("layer codes rounded add", {}, 2),
        ("layer other codes rounded other", {"activation": "relu"}, 3),
        ("layer codes rounded add codes rounded", {"residual": True}, 5),
        ("layer codes rounded affine", {}, 2),
        ("layer codes rounded", {"activation": "relu"}, None),
    ],
)
def test_codes(kinds: str, fused: dict[str, object], place: int | None) -> None:
    assert found(kinds, dtype="uint8", **fused) == place  # type: ignore[arg-type]
