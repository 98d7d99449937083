"""What PyTorch would compute or run while it loads a script is refused before it sees the source;
what its own writer writes stays as it is."""

import resource
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from subpc.errors import ModelFileError
from subpc.frontend.files.script.source import MOST_MADE, Unwritten, checked_source
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference
from tests.frontend.files.archives import Members, read, write
from tests.frontend.small_model import SHAPE, Small, save_script

_FIRST = b"    fc = self.fc\n"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Members:
    path = tmp_path_factory.mktemp("script") / "m.pt"
    save_script(Small().eval(), path)
    return read(path)


def _with_source(script: Members, old: bytes, new: bytes, path: Path) -> Path:
    name = next(name for name in script if b"class Small" in script[name])
    assert old in script[name]
    return write(path, {**script, name: script[name].replace(old, new, 1)})


def _lines(*lines: str) -> bytes:
    return _FIRST + "".join(f"    {line}\n" for line in lines).encode()


def _doubled(line: str, times: int = 34) -> Sequence[str]:
    return [line.format(new=i + 1, old=i) for i in range(times)]


GROWING = {
    "sum": ['s0 = "ab"', *_doubled("s{new} = torch.add(s{old}, s{old})")],
    "plus": ['s0 = "ab"', *_doubled("s{new} = s{old} + s{old}")],
    "under other names": ['s0 = "ab"', *_doubled("s{new} = getattr(torch, 'add')(s{old}, s{old})")],
    "times": ['s = "ab" * 4000000000'],
    "format": ['s0 = "ab"', *_doubled('s{new} = torch.format("{{}}{{}}", s{old}, s{old})')],
    "percent": ['s0 = "ab"', *_doubled('s{new} = torch.percentFormat("%s%s", s{old}, s{old})')],
    "f-strings": ['s0 = "ab"', *_doubled("s{new} = f'{{s{old}}}{{s{old}}}'")],
    "method": ['s0 = "ab"', *_doubled("s{new} = (s{old}).replace('a', s{old})")],
    "padded": ['s = ("a").zfill(4000000000)'],
    "padded to a computed width": [
        "n = torch.mul(2000000, 2000)",
        's = torch.center("a", n, " ")',
    ],
    "number as text": [
        "s0 = torch.str(123456789)",
        *_doubled("s{new} = torch.add(s{old}, s{old})"),
    ],
    "in a branch": [
        'a = "a"',
        "if True:",
        *[f"  {line}" for line in _doubled("a = torch.add(a, a)")],
        "else:",
        "  a = torch.str(torch.dim(x))",
    ],
    "tuples": ['t0 = ("a", 1)', *_doubled("t{new} = (t{old}, t{old})")],
    "tuples of numbers": ["t0 = (1, 2)", *_doubled("t{new} = (t{old}, t{old})")],
    "many": [
        's = "' + "a" * 1000 + '"',
        *[f"t{i} = torch.add(s, s)" for i in range(1000)],
    ],
    "many of each other": ["def f() -> str:", "  s0 = 'ab'"]
    + [f"  {line}" for line in _doubled("s{new} = torch.add(s{old}, s{old})")]
    + ["  return s34"],
}


@pytest.mark.parametrize("lines", GROWING.values(), ids=GROWING.keys())
def test_constants_that_grow_are_refused_before_they_are_made(
    lines: Sequence[str], script: Members, tmp_path: Path
) -> None:
    path = _with_source(script, _FIRST, _lines(*lines), tmp_path / "m.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError, match="source that PyTorch does not write"):
        import_model(path, shapes=[SHAPE])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


_STEALS = b'torch.from_file("stolen", True, 4)'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"x: Tensor)", b"x: Tensor, y: Tensor=" + _STEALS + b")"),
        (b"x: Tensor)", b"x: Tensor, *, y: Tensor=" + _STEALS + b")"),
        (b"  training : bool", b"  q : Final[Tensor] = " + _STEALS + b"\n  training : bool"),
        (b"  training : bool", b"  q : Final[str] = 'a'.zfill(4000000000)\n  training : bool"),
        (b"  training : bool", b"  q = [" + _STEALS + b"]\n  training : bool"),
        (b"class Small", b"q = " + _STEALS + b"\nclass Small"),
        (
            b"class Small",
            b"class N(NamedTuple):\n  a : Tensor = " + _STEALS + b"\nclass Small",
        ),
        (
            b"  def forward",
            "  def __\N{FULLWIDTH LATIN SMALL LETTER S}etstate__(self, s: Tensor):\n"
            "    pass\n  def forward".encode(),
        ),
    ],
)
def test_values_that_run_while_loading_are_refused(
    old: bytes, new: bytes, script: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _with_source(script, old, new, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"computed|cannot|does not write|while it is loaded"):
        import_model(path, shapes=[SHAPE])
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "line",
    [
        "t = torch",
        "f = torch.mul",
        "(f,) = (torch.zfill,)",
        "torch = self",
        "y = [i for i in [1]]",
        "f = lambda: 1",
        "y = " + "(" * 150 + "1" + ",)" * 150,
        "y = x" + ".a" * 5000,
    ],
)
def test_only_what_the_writer_writes_is_accepted(
    line: str, script: Members, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="source that PyTorch does not write"):
        import_model(_with_source(script, _FIRST, _lines(line), tmp_path / "m.pt"), shapes=[SHAPE])


class Honest(nn.Module):
    """What honest scripts have in defaults, attributes, texts and constants."""

    scale: torch.jit.Final[float]  # type: ignore[name-defined]
    steps: torch.jit.Final[list[int]]  # type: ignore[name-defined]

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.steps = -1.5, [1, 2]
        self.label = 'é "quoted" \\ \t\x1b'

    def forward(self, x: torch.Tensor, factor: float = 2.0, shift: int = -1) -> torch.Tensor:
        label = self.label + "é\x1b"
        pair = (1, (2.5, "a"))
        if x.dim() > 9:
            raise ValueError(f"{label}: {x.dim()} in {pair}")
        return x * factor * self.scale + shift + self.steps[1] + pair[0]


def test_honest_constants_stay(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Honest()), tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE])
    x = torch.rand(SHAPE)
    assert np.allclose(run_reference(imported, [x.numpy()])[0], (x * -3 + 2).numpy(), atol=1e-6)


def test_constants_are_counted_in_all_sources_together() -> None:
    line = 's = torch.add("' + "a" * 1000 + '", "b")'
    source = f"def f() -> str:\n  {line}\n  return s\n".encode()
    few = {f"code/{i}.py": source for i in range(MOST_MADE // 2000)}
    assert checked_source(few).keys() == few.keys()
    with pytest.raises(Unwritten, match="letters or entries"):
        checked_source({f"code/{i}.py": source for i in range(MOST_MADE // 500)})
