"""Names that no file can have are refused by what reads them, and stop nothing before."""

from pathlib import Path

import pytest

from subpc.errors import SubpcError
from subpc.files import check_outputs
from subpc.model_files import check_file, model_files


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a\ud800b"])
def test_an_input_that_no_file_can_be_called_is_left_to_what_reads_it(
    name: str, tmp_path: Path
) -> None:
    check_outputs([tmp_path / "a"], [name])
    with pytest.raises(SubpcError, match="cannot be read"):
        check_file(Path(name))
    assert model_files(f"{name}.onnx") == [Path(f"{name}.onnx")]
