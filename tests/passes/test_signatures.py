"""Networks with several inputs or outputs, other types than float32, and shapes of every rank:
equal to PyTorch eager."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from subpc.compiler.compile_model import compile

TOLERANCE = 1e-4  # of the output's range
Forward = Callable[..., Any]


class Net(nn.Module):
    """A few layers, and a forward pass over them that each test writes itself."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.table, self.linear = nn.Embedding(10, 8), nn.Linear(8, 5)
        self.body = forward

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.body(self, *inputs)


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 3, 12, 10), generator=torch.Generator().manual_seed(1))


def check(forward: Forward, *inputs: torch.Tensor) -> tuple[str, ...]:
    """Compile, compare every output with eager, and give the names of the outputs."""
    net = Net(forward).eval()
    with torch.no_grad():
        expected = [value for value in tree_leaves(net(*inputs)) if isinstance(value, torch.Tensor)]
    model = compile(net, inputs)
    outputs = model(*inputs)
    got = list(outputs) if isinstance(outputs, tuple) else [outputs]
    assert [(g.shape, g.dtype) for g in got] == [(e.shape, e.dtype) for e in expected]
    for g, e in zip(got, expected, strict=True):
        assert float((g.double() - e.double()).abs().max()) <= TOLERANCE * float(
            e.double().abs().max()
        )
    named = model.run(
        {info.name: value for info, value in zip(model.functions[0].inputs, inputs, strict=True)}
    )
    assert all(torch.equal(a, b) for a, b in zip(named.values(), got, strict=True))
    return tuple(named)


def _shared(net: Net, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = net.wide(x)
    return torch.cat([y, net.deep(y)], 1), y


SEVERAL: dict[str, Forward] = {
    "a tuple": lambda n, x: (n.wide(x), n.deep(n.wide(x)).mean((2, 3))),
    "a list": lambda n, x: [n.wide(x), x + 1],
    "a tensor and what follows it": lambda n, x: (n.wide(x), n.wide(x).relu()),
    "five truths twice": lambda n, x: (lambda y: (y, y))(x.reshape(-1)[:5] > 0),
    "a tensor twice": lambda n, x: (lambda y: (y, y))(n.wide(x)),
    "a tensor and a view of it": lambda n, x: (lambda y: (y, y.flatten(1)))(n.wide(x)),
    "an input": lambda n, x: (n.wide(x), x),
    "a view of an input": lambda n, x: (n.wide(x), x.flatten(1)),
    "nothing computed": lambda n, x: (x, x.flatten(1)),
    "a concatenation and a part of it": _shared,
    "parts of a tensor": lambda n, x: torch.split(n.wide(x), 4, 1),
    "nested": lambda n, x: {"a": (n.wide(x), x * 2), "b": x - 1},
}


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("batch", [1, 2])
def test_several_outputs(name: str, batch: int) -> None:
    assert len(check(SEVERAL[name], image(batch, 3, 12, 10))) >= 2


def test_a_dictionary_names_its_outputs() -> None:
    assert check(
        lambda n, x: {"features": n.wide(x), "score": n.wide(x).mean((2, 3))}, image()
    ) == ("features", "score")


def test_outputs_that_are_no_tensors_are_left_out_with_a_note() -> None:
    assert check(lambda n, x: {"features": n.wide(x), "loss": None, "size": 3}, image()) == (
        "features",
    )
    notes = compile(
        Net(lambda n, x: {"features": n.wide(x), "loss": None}).eval(), image()
    ).report.metadata.notes
    assert notes == ("output 'loss' is always None, and left out",)


TWO: dict[str, tuple[Forward, torch.Tensor]] = {
    "equal shapes": (lambda n, x, y: n.wide(x) + n.wide(y * 2), image()),
    "a value a channel": (lambda n, x, y: n.wide(x) * y, image(1, 8, 1, 1)),
    "a vector": (lambda n, x, y: torch.cat([n.wide(x).mean((2, 3)), y], 1), image(1, 5)),
    "a scalar": (lambda n, x, y: n.wide(x) * y, torch.tensor(2.5)),
    "one that is not used": (lambda n, x, y: n.wide(x), image(4)),
    "class numbers": (lambda n, x, y: n.wide(x) + n.table(y)[:, :, None, None], torch.tensor([3])),
    "channel numbers": (lambda n, x, y: n.wide(x).index_select(1, y), torch.tensor([3, 1])),
    "a mask": (lambda n, x, y: torch.where(y, n.wide(x), 0.0), image(1, 8, 12, 10) > 0),
}


@pytest.mark.parametrize("name", TWO)
def test_two_inputs(name: str) -> None:
    forward, second = TWO[name]
    check(forward, image(), second)


NUMBERS = torch.tensor([[1, 2, 3], [4, 5, 9]])
TYPES: dict[str, tuple[Forward, torch.Tensor]] = {
    "int64 to a table": (lambda n, i: n.linear(n.table(i)).relu(), NUMBERS),
    "int32 to a table": (lambda n, i: n.table(i), NUMBERS.int()),
    "int64 arithmetic": (lambda n, i: i * 2 + 1, NUMBERS),
    "uint8 pixels": (lambda n, i: n.wide(i.float() / 255), (40 * image().abs()).to(torch.uint8)),
    "int64 out": (lambda n, x: n.wide(x).mean((2, 3)).argmax(1), image()),
    "bool out": (lambda n, x: n.wide(x) > 0, image()),
}


@pytest.mark.parametrize("name", TYPES)
def test_other_types(name: str) -> None:
    forward, value = TYPES[name]
    check(forward, value)


RANKS: dict[str, tuple[Forward, tuple[int, ...]]] = {
    "a scalar out": (lambda n, x: n.wide(x).mean(), (1, 3, 12, 10)),
    "a sum": (lambda n, x: x.sum(), (1, 3, 12, 10)),
    "one number": (lambda n, x: x * 2, (1,)),
    "one pixel": (lambda n, x: n.wide(x), (1, 3, 1, 1)),
    "a vector": (lambda n, x: n.linear(x), (8,)),
    "a row of vectors": (lambda n, x: n.linear(x).softmax(-1), (2, 3, 8)),
    "five dimensions": (lambda n, x: x + 1, (1, 2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", RANKS)
def test_every_rank(name: str) -> None:
    forward, shape = RANKS[name]
    check(forward, image(*shape))


def test_several_shapes_in_one_library() -> None:
    net = Net(lambda n, x: (n.deep(n.wide(x)).relu(), x.mean((2, 3)))).eval()
    shapes = [(1, 3, 12, 10), (2, 3, 12, 10), (3, 3, 7, 5)]
    model = compile(net, shapes=shapes)
    assert [function.inputs[0].shape for function in model.functions] == shapes
    for shape in reversed(shapes):
        x = image(*shape)
        with torch.no_grad():
            expected = net(x)
        for got, right in zip(model(x), expected, strict=True):
            assert torch.allclose(got, right, atol=1e-5)
