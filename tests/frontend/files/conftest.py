"""An honest file for tests to change."""

import pytest

from tests.frontend.files.archives import Members, read
from tests.frontend.small_model import Small, save_program


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Members:
    path = tmp_path_factory.mktemp("fixed") / "m.pt2"
    save_program(Small().eval(), path)
    return read(path)
