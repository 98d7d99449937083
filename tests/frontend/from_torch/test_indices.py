"""Constant indices outside of what they index: refused when they are compiled, where PyTorch
refuses them when they run."""

import pytest
import torch
from torch import nn

from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference

X = torch.arange(24.0).reshape(1, 4, 6)


class Picks(nn.Module):
    """One of the operators that index, with indices that it keeps, or computes without any
    input."""

    def __init__(self, operator: str, index: list[int], *, computed: bool) -> None:
        super().__init__()
        self.operator, self.computed = operator, computed
        self.register_buffer("index", torch.tensor(index))
        self.table = nn.Parameter(torch.arange(8.0).reshape(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index = self.index + torch.arange(3) if self.computed else self.index
        if self.operator == "embedding":
            return nn.functional.embedding(index, self.table) + x.sum()
        if self.operator == "index_select":
            return torch.index_select(x, 1, index)
        if self.operator == "gather":
            return torch.gather(x, 1, index.reshape(1, -1, 1))
        return x[:, index]


def _program(operator: str, index: list[int], *, computed: bool) -> torch.export.ExportedProgram:
    """Exported with indices inside, which are then changed: what a program holds is not run when it
    is loaded."""
    program = torch.export.export(Picks(operator, [0, 0, 0], computed=computed), (X,))
    held = program.state_dict if "index" in program.state_dict else program.constants
    held["index"] = torch.tensor(index)
    return program


OPERATORS = ("embedding", "index_select", "gather", "index")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    ("index", "computed", "seen"),
    [([0, 4, 1], False, 4), ([-5, 0, 0], False, -5), ([2, 2, 2], True, 4)],
)
def test_an_index_outside_is_refused(
    operator: str, index: list[int], computed: bool, seen: int
) -> None:
    with pytest.raises(
        UnsupportedModelError, match=f"takes index {seen} along axis [01], which has 4 elements"
    ):
        import_model(_program(operator, index, computed=computed))


@pytest.mark.parametrize("operator", OPERATORS)
def test_minus_one_is_the_last_element_where_pytorch_says_so(operator: str) -> None:
    program = _program(operator, [1, -1, 0], computed=False)
    if operator != "index":
        with pytest.raises(UnsupportedModelError, match="takes index -1"):
            import_model(program)
        return
    (imported,) = import_model(program)
    assert (run_reference(imported, [X.numpy()])[0] == X[:, [1, -1, 0]].numpy()).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_indices_inside_are_taken(operator: str) -> None:
    model = Picks(operator, [0, 1, 1], computed=True)
    (imported,) = import_model(_program(operator, [0, 1, 1], computed=True))
    assert (run_reference(imported, [X.numpy()])[0] == model(X).detach().numpy()).all()


def test_a_module_is_run_first_and_says_it_itself() -> None:
    with pytest.raises(ConfigError, match="index out of range"):
        import_model(Picks("embedding", [9, 0, 0], computed=False), example_inputs=X)
