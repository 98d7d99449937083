"""The archives of torch.export files from strangers: members, weights and JSON that readers differ
about, or that point out of the file."""

from pathlib import Path
from typing import Any

import pytest

from subpc.errors import ModelFileError
from subpc.frontend.import_model import import_model
from tests.frontend.files.archives import Members, member, with_json, write
from tests.frontend.files.refusal import refused
from tests.frontend.small_model import SHAPE

MODEL, WEIGHTS = "models/model.json", "weights_config.json"


@pytest.mark.parametrize(
    "tail",
    [b',"guards_code":["1"]}', b',"z":NaN}', b',"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)
def test_json_that_readers_differ_about(
    tail: bytes, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = member(fixed, MODEL)
    assert "no JSON text" in refused(
        {**fixed, path: fixed[path][:-1] + tail}, tmp_path, monkeypatch
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"use_pickle": True},
        {"use_pickle": "yes"},
        {"path_name": "../../../etc/passwd"},
        {"path_name": "weight_99"},
        {"tensor_meta": {"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 0}]}},
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_weights_are_tensors_in_the_file(
    entry: dict[str, Any],
    empty: bool,
    fixed: Members,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(config: Any) -> None:
        meta = {**config["config"]["conv.weight"]["tensor_meta"], **entry.get("tensor_meta", {})}
        config["config"]["conv.weight"].update({**entry, "tensor_meta": meta})

    members = with_json(fixed, WEIGHTS, change)
    refused(
        {**members, member(fixed, "weight_0"): b""} if empty else members, tmp_path, monkeypatch
    )


@pytest.mark.parametrize(
    "name",
    [
        *[
            "data/aotinductor/model/x.so",
            "data/weights/model.pt",
            "DATA/weights/weight_0",
            "data\\weights\\weight_9",
            "models/other.json",
        ],
        *[
            "data/constants/opaque_obj_0",
            "data/constants/custom_obj_0",
            "models/mod\u0435l.json",
            "Models/model.json",
        ],
    ],
)
def test_members_of_other_names(
    name: str, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = next(iter(fixed)).split("/")[0]
    refused({**fixed, f"{root}/{name}": b"x"}, tmp_path, monkeypatch)


def test_what_the_local_header_of_a_member_says_does_not_matter(
    fixed: Members, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.pt2", fixed)
    content = bytearray(path.read_bytes())
    name = member(fixed, "weight_0").encode()
    start = content.index(name)  # in the local header, which comes first
    content[start : start + len(name)] = name[:-1] + b"1"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        import_model(path, shapes=[SHAPE])
