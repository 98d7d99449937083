"""TorchScript files from strangers: whatever way they spell it, they reach no file, and honest ones
load."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.torchvision_import import import_torchvision
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference
from tests.frontend.files.archives import Members, member, read, write
from tests.frontend.small_model import SHAPE, Small, save_script, save_trace

STOLEN = "stolen"


class Saves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "stolen")
        return x * 2


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", False, 4)  # type: ignore[attr-defined]


class SavesNever(nn.Module):
    """In a branch that this input does not take."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) > 5:
            for _ in range(3):
                torch.save(x, "stolen")
        return x * 2


class Prints(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("\x1b[2J")
        return x * 2


class Ordered:
    """Saves when PyTorch compares two of it."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __lt__(self, other: "Ordered") -> bool:
        torch.save(torch.ones(1), "stolen")
        return self.value < other.value


class Sorts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entries = [Ordered(2), Ordered(1)]
        entries.sort()
        return x * entries[0].value


class Everyday(nn.Module):
    """What scripted networks have beside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv2d(3, 4, 3), nn.Dropout(0.5)
        self.names = ["a", "b"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4:
            raise ValueError(f"{x.dim()} dimensions, not {self.names}")
        warnings.warn("careful", stacklevel=1)
        parts: list[torch.Tensor] = []
        for _ in range(2):
            parts.append(self.drop(self.conv(x)))
        found: dict[str, torch.Tensor] = {"first": parts[0]}
        y = torch.cat(parts, 1)
        i = 0
        while i < 2:
            y = y + found["first"].repeat(1, 2, 1, 1)
            i += 1
        with torch.no_grad():
            return y * 1


@pytest.mark.parametrize("kind", [Saves, Reads, SavesNever, Prints, Sorts])
def test_operators_that_reach_out_are_refused(
    kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_script(kind(), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"calls (aten::(save|from_file)|prim::Print)"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert not (tmp_path / STOLEN).exists()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Members:
    path = tmp_path_factory.mktemp("script") / "m.pt"
    save_script(Small().eval(), path)
    return read(path)


def _source(script: Members) -> str:
    return next(name for name in script if name.endswith(".py") and b"class Small" in script[name])


@pytest.mark.parametrize(
    "line",
    [
        b't = torch\n    t.save(x, "stolen")',
        b'ops.aten.save(x, "stolen")',
        b'getattr(torch, "save")(x, "stolen")',
        b'torch . save(x, "stolen")',
        b'_ = torch.len([ops.aten.from_file("stolen", True, 4)])',
        b"torch.manual_seed(3)",
    ],
)
def test_source_that_spells_them_otherwise(
    line: bytes, script: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = _source(script)
    changed = script[name].replace(b"    fc = self.fc\n", b"    fc = self.fc\n    " + line + b"\n")
    assert changed != script[name]
    try:
        import_model(write(tmp_path / "m.pt", {**script, name: changed}), shapes=[SHAPE])
    except ModelFileError as error:
        refusals = ("calls aten::", "source that PyTorch does not write")
        assert any(text in str(error) for text in refusals)  # noqa: PT017
    else:
        assert b"_ = " in line  # what nobody uses is not run
    assert not (tmp_path / STOLEN).exists()


@pytest.mark.parametrize(
    "text",
    [
        (
            b"  def __setstate__(self: __torch__.Small, s: Tensor) -> NoneType:\n    torch.save(s,"
            b' "stolen")\n'
        ),
        b'  __forward_hooks__ = ["hook", ]\n',
        b"  other : __torch__.torch.classes.profiling._RecordFunctionFast\n",
    ],
)
def test_methods_that_run_while_loading_are_refused(
    text: bytes, script: Members, tmp_path: Path
) -> None:
    name = _source(script)
    with pytest.raises(ModelFileError, match="run while it is loaded"):
        import_model(
            write(tmp_path / "m.pt", {**script, name: script[name] + text}), shapes=[SHAPE]
        )


@pytest.mark.parametrize(
    "pair", [("/code/", "/CODE/"), (".py", ".PY"), ("constants.pkl", "Constants.pkl")]
)
@pytest.mark.parametrize("both", [False, True])
def test_names_in_another_case_are_refused(
    pair: tuple[str, str], both: bool, script: Members, tmp_path: Path
) -> None:
    renamed = {name.replace(*pair): content for name, content in script.items()}
    path = write(tmp_path / "m.pt", {**script, **renamed} if both else renamed)
    with pytest.raises(ModelFileError, match="repeated" if both else "holds|lacks"):
        import_model(path, shapes=[SHAPE])


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n",
        b"c__torch__.torch\nclasses.profiling.X\n",
        b"\x8c\x02os\x8c\x06system\x93",
        b"(",
    ],
)
@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
def test_pickles_hold_tensors_and_modules(
    pickled: bytes, name: str, script: Members, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.pt", {**script, member(script, name): b"\x80\x02" + pickled})
    with pytest.raises(ModelFileError, match=r"holds an object|has the opcode|cannot be read"):
        import_model(path, shapes=[SHAPE])


def test_everyday_scripts_load(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    model = Everyday().eval()
    save_script(model, tmp_path / "m.pt")
    recwarn.clear()
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert not [warning for warning in recwarn if "careful" in str(warning.message)]
    x = torch.rand(SHAPE)
    assert np.abs(run_reference(imported, [x.numpy()])[0] - model(x).detach().numpy()).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "densenet121"],
)
@pytest.mark.parametrize("save", [save_script, save_trace])
def test_networks_of_torchvision_load(name: str, save: object, tmp_path: Path) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(import_torchvision().models, name)(weights=None, **options).eval()
    torch.jit.save(
        (
            torch.jit.script(model)
            if save is save_script
            else torch.jit.trace(model, torch.rand(1, 3, 96, 96))
        ),
        tmp_path / "m.pt",
    )
    (imported,) = import_model(tmp_path / "m.pt", shapes=[(1, 3, 96, 96)])
    assert len(imported.params) > 20


class Refuses(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) == 1:
            raise ValueError("images come in pairs")
        return x * 2


def test_what_a_script_says_reaches_the_message(tmp_path: Path) -> None:
    save_script(Refuses(), tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="images come in pairs"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
