"""A torch.export file, made data only. torch.export.load trusts its input more than its name
suggests:

it falls back to full unpickling for sample inputs, unpickles tensors marked `use_pickle` and custom
objects, loads compiled libraries, looks operators up by attribute path from `torch` (which reaches
`os`), imports modules that tree descriptions name, and runs symbolic sizes, names and guards as
Python. A file from `torch.export.save` of an ordinary network needs none of that. So its parts are
checked against what is known, and PyTorch gets an archive that is written anew from what was
understood.
"""

import io
import json
import logging
import math
import re
from typing import Any

import torch
from torch.export import ExportedProgram

from subpc.frontend.files.archive import Archive, written_again
from subpc.frontend.files.pt2.nested_json import checked_config, checked_program, parse
from subpc.frontend.files.pt2.schema_types import config_of_its_types, program_of_its_types
from subpc.frontend.files.pt2.unsafe import Unsafe
from subpc.frontend.files.pt2.work import check_work

_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/": "model_weights_config.json",
    "data/constants/": "model_constants_config.json",
}
_PLAIN = {"archive_format", "archive_version", "byteorder", ".data/version", "version"}
_PAYLOAD = {
    "data/weights/": re.compile(r"weight_\d{1,9}"),
    "data/constants/": re.compile(r"tensor_\d{1,9}"),
}
# Numbers that tensors may have beyond what the file holds of them: an expanded view of a terabyte
# fits in four bytes.
_MAX_EXPANDED = 1 << 24
_IGNORED = re.compile(r"\.data/serialization_id|\.format_version|extra/.*")


def load_checked(archive: Archive) -> ExportedProgram:
    """The program in `archive`; Unsafe where loading it could run code that its author wrote, or
    whatever PyTorch raises."""
    members = archive.content()
    if _MODEL not in members:
        found = next((name for name in members if name.startswith("models/")), "")
        raise Unsafe(f"it holds {found[:80] or 'no program'}; torch.export.save writes {_MODEL}")
    kept = {name: content for name, content in members.items() if name in _PLAIN}
    for folder in _CONFIGS:
        kept |= _payload(members, folder)
    program = program_of_its_types(checked_program(parse(members[_MODEL], _MODEL)))
    check_work(program["graph_module"]["graph"])
    _check_samples(members.get(_SAMPLES, b""))
    unknown = [
        name
        for name in members
        if name not in kept and name not in (_MODEL, _SAMPLES) and not _IGNORED.fullmatch(name)
    ]
    if unknown:
        raise Unsafe(
            f"it holds {unknown[0][:80]}, which torch.export.save does not write for a plain"
            " network"
        )
    guards = program.pop("guards_code")
    # Without sample inputs PyTorch makes no function of the guards; pt2_guards.py looks at them
    # instead.
    kept |= {_MODEL: json.dumps({**program, "guards_code": []}).encode(), _SAMPLES: b""}
    loaded = _load(written_again(kept))
    loaded._guards_code = guards
    return loaded


def _load(archive: io.BytesIO) -> ExportedProgram:
    """torch.export.load, with the reason of a failure in the exception: it writes a traceback to
    its log and says to look there."""
    heard: list[BaseException] = []

    def hear(record: logging.LogRecord) -> bool:
        heard.extend(filter(None, record.exc_info[1:2] if record.exc_info else ()))
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(hear)
    try:
        return torch.export.load(archive)
    except Exception as error:
        raise (heard[0] if heard else error) from error
    finally:
        logger.removeFilter(hear)


def _payload(members: dict[str, bytes], folder: str) -> dict[str, bytes]:
    """The description of weights or constants, and the tensors that it names."""
    name = folder + _CONFIGS[folder]
    if name not in members:
        raise Unsafe(f"it lacks {name}; export it again with this version of torch")
    config = config_of_its_types(checked_config(parse(members[name], name)))
    kept = {name: json.dumps(config).encode()}
    expanded = 0
    for entry in config["config"].values():
        payload = entry["path_name"]
        if not _PAYLOAD[folder].fullmatch(payload) or folder + payload not in members:
            raise Unsafe(f"it describes a tensor in {payload[:60]!a}, which it does not hold")
        kept[folder + payload] = content = members[folder + payload]
        expanded += max(0, _items(entry.get("tensor_meta")) - len(content))
    if expanded > _MAX_EXPANDED:
        raise Unsafe("its tensors are larger than what the file holds of them")
    # Tensors that no entry names are left out.
    unused = [
        key
        for key in members
        if key.startswith(folder) and _PAYLOAD[folder].fullmatch(key.removeprefix(folder))
    ]
    return {**dict.fromkeys(unused, b""), **kept}


def _items(meta: Any) -> int:
    """How many numbers a tensor has; a file may hold fewer where it was expanded."""
    try:
        sizes = [int(size["as_int"]) for size in meta["sizes"]]
    except (KeyError, TypeError) as error:
        raise Unsafe("its weights have no sizes") from error
    return math.prod(max(0, size) for size in sizes)


def _check_samples(content: bytes) -> None:
    """Sample inputs are not used; but a file with pickled objects there was not made by an honest
    exporter."""
    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise Unsafe("its sample inputs hold pickled Python objects") from error
