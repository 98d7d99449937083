"""Elementwise programs against PyTorch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.activation import Activation
from subpc.schedules.elementwise import Elementwise
from subpc.schedules.elementwise_program import Constant
from subpc.schedules.isa import VectorIsa
from tests.schedules.harness import (
    ISAS,
    check_tensor,
    cpu_supports,
    into,
    run_everywhere,
    tensor,
)

SHAPES = [(1, 1, 1, 1), (3, 17, 7, 7), (1, 3, 13, 17), (2, 40, 1, 1), (1, 5, 20, 150)]

Tensor = torch.Tensor
PROGRAMS: list[
    tuple[
        tuple[str, ...], tuple[int | Constant | str | Activation, ...], Callable[..., Tensor], bool
    ]
] = [
    (
        ("tensor", "tensor"),
        (0, 1, "add", Activation(kind="relu")),
        lambda a, b: functional.relu(a + b),
        True,
    ),
    (("tensor", "image_channel"), (0, 1, "mul"), lambda a, b: a * b, True),
    (("tensor", "channel", "channel"), (0, 1, "mul", 2, "add"), lambda a, b, c: a * b + c, False),
    (
        ("tensor", "image_channel"),
        (0, 1, Activation(kind="sigmoid"), "mul"),
        lambda a, b: a * torch.sigmoid(b),
        True,
    ),
    (("tensor",), (0, Activation(kind="silu")), functional.silu, True),
    (
        ("tensor",),
        (0, Constant(2.0), "add", Activation(kind="relu6"), Constant(0.5), "max"),
        lambda a: functional.relu6(a + 2).clamp(min=0.5),
        False,
    ),
    (
        ("tensor", "tensor"),
        (0, 1, Activation(kind="exp"), "div", Constant(1.0), "sub"),
        lambda a, b: a / torch.exp(b) - 1,
        False,
    ),
    (("channel", "tensor"), (0, 1, "min"), lambda a, b: torch.minimum(a, b), False),
]


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("halo", [None, 0, 2])
@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_program(index: int, halo: int | None, isa: VectorIsa) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    kinds, program, reference, keeps_zero = PROGRAMS[index]
    for shape in SHAPES:
        rng = np.random.default_rng(0)
        layout = tensor(*shape, halo)
        shapes = {
            "tensor": shape,
            "channel": (1, shape[1], 1, 1),
            "image_channel": (*shape[:2], 1, 1),
        }
        values = [rng.standard_normal(shapes[k]).astype("float32") for k in kinds]
        flat = [
            into(layout, v) if k == "tensor" else v.ravel()
            for k, v in zip(kinds, values, strict=True)
        ]
        kernel = Elementwise(layout=layout, inputs=kinds, program=program)
        assert kernel.keeps_zero == keeps_zero
        got = run_everywhere(kernel, [*flat, np.zeros(layout.elements, "float32")], isa)
        check_tensor(layout, got, reference(*map(torch.tensor, values)).numpy(), 1e-5)


def test_constants_and_inputs_are_told_apart() -> None:
    layout = tensor(1, 1, 4, 4)
    of_inputs = Elementwise(layout=layout, inputs=("tensor", "tensor"), program=(0, 1, "add"))
    assert of_inputs != Elementwise(
        layout=layout, inputs=("tensor", "tensor"), program=(0, Constant(1.0), "add")
    )


@pytest.mark.parametrize("program", [(0, "add"), (0, 0), (0, "pow")])
def test_bad_programs_are_refused(program: tuple[int | Constant | str | Activation, ...]) -> None:
    with pytest.raises(ValueError, match=r"lacks a value|leaves 2 values|unknown pow"):
        Elementwise(layout=tensor(1, 1, 4, 4), inputs=("tensor",), program=program)
