"""What PyTorch tells itself while a model is imported reaches nobody; what the user's own code
warns of does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SAVE = """
import warnings
from pathlib import Path
import torch
from torch import nn
from subpc.frontend.import_model import import_model
from subpc.frontend.load_network import load_network
from tests.frontend.small_model import SHAPE, Small, save_program, save_script, save_trace
here = Path({folder!r})
class Warns(Small):
    def forward(self, x):
        warnings.warn("mine", stacklevel=1)
        return super().forward(x)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what saving warns of
    save_script(Small(), here / "training.pt")
    save_trace(Small().eval(), here / "trace.pt")
    save_program(Small().eval(), here / "program.pt2")
    doubles = torch.jit.script(Small().double().eval())
warnings.simplefilter("always")
for name in ("training.pt", "trace.pt", "program.pt2"):
    import_model(here / name, shapes=[SHAPE])
    load_network(here / name, shape=SHAPE)
import_model(doubles, example_inputs=torch.rand(SHAPE))
"""


def _stderr(code: str, folder: Path) -> str:
    script = code.format(folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return done.stderr


def test_every_kind_of_file_is_imported_in_silence(tmp_path: Path) -> None:
    assert _stderr(SAVE, tmp_path) == ""
    own = _stderr(f"{SAVE}import_model(Warns().eval(), example_inputs=torch.rand(SHAPE))", tmp_path)
    assert "UserWarning: mine" in own
    assert "DeprecationWarning" not in own
    assert "FutureWarning" not in own
