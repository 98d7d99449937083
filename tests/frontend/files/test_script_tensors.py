"""Tensors of a script that claim more than the file has: refused before anything reads beyond it."""

from pathlib import Path

import pytest

from subpc.errors import ModelFileError
from subpc.frontend.import_model import import_model
from tests.frontend.files.archives import member, read, write
from tests.frontend.small_model import SHAPE, Small, save_script

# In the pickle, conv.weight: 108 elements from 0 in the shape 4x3x3x3, with strides 27, 9, 3, 1.
CHANGES = {"more elements than bytes": (b"Kl", b"Km"), "a longer stride": (b"K\x1bK\tK\x03K\x01", b"K\xffK\tK\x03K\x01")}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_beyond_their_bytes_are_refused(change: str, tmp_path: Path) -> None:
    save_script(Small().eval(), tmp_path / "m.pt")
    members = read(tmp_path / "m.pt")
    name = member(members, "data.pkl")
    assert members[name].count(CHANGES[change][0]) == 1
    changed = {**members, name: members[name].replace(*CHANGES[change])}
    with pytest.raises(ModelFileError, match=r"(than|beyond) its bytes"):
        import_model(write(tmp_path / "m.pt", changed), shapes=[SHAPE])
