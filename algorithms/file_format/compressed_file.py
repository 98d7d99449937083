"""The compressed model file: plain tensors, the architecture, configuration and report, read
without running any of it."""

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from subpc.algorithms.file_format.block_entries import block_entries, parse_blocks
from subpc.algorithms.file_format.graph.entry import graph_entry, parse_graph
from subpc.algorithms.file_format.graph.network import Graph
from subpc.algorithms.file_format.quantized_entries import packed_entries, parse_packed
from subpc.algorithms.file_format.safetensors_file import to_bytes
from subpc.algorithms.network.tensor_kinds import check_state
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.errors import ModelFileError
from subpc.files import replacing

FORMAT_KEY, FORMAT_VERSION = "subpc_format", 2
# Format 1 differs in the entries of packed layers.
_READ = (1, FORMAT_VERSION)
# Of batch norms: read in training only.
_COUNTER = "num_batches_tracked"
_PLAIN = (str, int, float, bool, type(None))
# Of the name of an architecture, of one of its options, or of an option's value.
_MAX_WORD = 200


@dataclass(frozen=True, kw_only=True)
class CompressedFile:
    """A compressed network.

    arch: `subpc:NAME` or a torchvision name, or `graph` where `graph` has the network itself;
    config and report: JSON values;
    input_shape: (n, c, h, w). packed: layers whose weights are kept as codes; their float weights
    are in state_dict too, where the file has the codes alone. blocks: {layer: N} of weights of
    which the file has the 1xN blocks that are not zero. half: the file has weights of two or more
    dimensions as float16; they are read as float32.
    """

    arch: str
    state_dict: dict[str, torch.Tensor]
    arch_options: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    packed: dict[str, Quantized] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    half: bool = False
    graph: Graph | None = None


def save_compressed(path: Path, file: CompressedFile) -> None:
    """Write `file` whole or not at all, as safetensors where the name ends so; ModelFileError where
    the disk refuses."""
    content = content_of(file)
    save_atomic(path, content if path.suffix == ".safetensors" else in_few_storages(content))


def content_of(file: CompressedFile) -> dict[str, Any]:
    """The entries of the file: plain values and the tensors that are kept."""
    blocks = {layer: n for layer, n in file.blocks.items() if layer not in file.packed}
    packed, sparse = ({f"{layer}.weight" for layer in layers} for layers in (file.packed, blocks))
    kept = {
        key: value
        for key, value in file.state_dict.items()
        if not key.endswith(_COUNTER) and key not in packed
    }
    stored = {key: _stored(value, file.half) for key, value in kept.items()}
    content = {
        FORMAT_KEY: FORMAT_VERSION,
        "arch": file.arch,
        "arch_options": file.arch_options,
        "state_dict": {key: value for key, value in stored.items() if key not in sparse},
        "config": file.config,
        "report": file.report,
        "input_shape": list(file.input_shape),
        "packed": packed_entries(file.packed),
        "blocks": block_entries(stored, blocks),
    }
    return content if file.graph is None else {**content, "graph": graph_entry(file.graph)}


def stored_bytes(content: dict[str, Any]) -> dict[str, int]:
    """{layer: bytes of its tensors} in what content_of gives."""
    sizes: dict[str, int] = {}
    for key, tensor in content["state_dict"].items():
        layer = key.rpartition(".")[0]
        sizes[layer] = sizes.get(layer, 0) + tensor.nbytes
    for layer, entry in (*content["packed"].items(), *content["blocks"].items()):
        sizes[layer] = sizes.get(layer, 0) + sum(
            value.nbytes for value in entry.values() if isinstance(value, torch.Tensor)
        )
    return sizes


def _stored(value: torch.Tensor, half: bool) -> torch.Tensor:
    value = value.detach().cpu().contiguous().clone()
    return value.half() if half and value.dim() > 1 and value.dtype == torch.float32 else value


def save_atomic(path: Path, content: Any) -> None:
    """torch.save, or safetensors, so that `path` holds the old content or all of the new."""
    with replacing(path) as stream:
        if path.suffix == ".safetensors":
            stream.write(to_bytes(content))
            return
        try:
            # Into memory first: PyTorch's writer ends the whole process when a disk is full.
            torch.save(content, memory := io.BytesIO())
            stream.write(memory.getbuffer())
        except (RuntimeError, pickle.PicklingError) as error:
            raise ModelFileError(
                f"cannot write {path}: {error}.\nFree space, or choose another place; the old file"
                " is untouched."
            ) from error


def in_few_storages(value: Any) -> Any:
    """`value` with its tensors moved into one storage a type: a file of PyTorch has some hundred
    bytes for each storage."""
    tensors: list[torch.Tensor] = []
    _collect(value, tensors)
    places: dict[int, torch.Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        own = list({id(t): t for t in tensors if t.dtype == dtype}.values())
        parts = torch.split(
            torch.cat([tensor.reshape(-1) for tensor in own]), [tensor.numel() for tensor in own]
        )
        places |= {
            id(tensor): part.view(tensor.shape) for tensor, part in zip(own, parts, strict=True)
        }
    return _replaced(value, places)


def _collect(value: Any, tensors: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        tensors.append(value)
    elif isinstance(value, dict | list | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            _collect(entry, tensors)


def _replaced(value: Any, places: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return places[id(value)]
    if isinstance(value, dict):
        return {key: _replaced(entry, places) for key, entry in value.items()}
    return (
        [_replaced(entry, places) for entry in value] if isinstance(value, list | tuple) else value
    )


def check_format(content: Any, name: str) -> None:
    """ModelFileError that names the file `name`, unless `content` is said to be of this format."""
    if not isinstance(content, dict) or FORMAT_KEY not in content:
        raise ModelFileError(
            f"{name} is not a compressed model of subpc: it has no entry {FORMAT_KEY!r}."
        )
    version = content[FORMAT_KEY]
    if type(version) is not int or version not in _READ:
        # A file of others may have a tensor of that name.
        shown = f"{version!r:.60}" if isinstance(version, _PLAIN) else type(version).__name__
        raise ModelFileError(
            f"{name} has format {shown}; this version of subpc reads formats up to"
            f" {FORMAT_VERSION}. Update subpc."
        )


def parse_compressed(content: Any, name: str) -> CompressedFile:
    """The checked content of the file `name`."""
    check_format(content, name)
    tensors: list[torch.Tensor] = []
    _collect(content, tensors)
    check_state({f"tensor {index}": tensor for index, tensor in enumerate(tensors)}, name)
    state, shape = content.get("state_dict"), content.get("input_shape", [])
    if not isinstance(content.get("arch"), str) or len(content["arch"]) > _MAX_WORD:
        raise ModelFileError(
            f"{name} does not name its architecture in a text of at most {_MAX_WORD} characters."
        )
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ModelFileError(f"{name}: the entry 'state_dict' has to map names to tensors.")
    if (
        not isinstance(shape, list)
        or len(shape) > 8
        or not all(type(size) is int and size > 0 for size in shape)
    ):
        raise ModelFileError(
            f"{name}: the entry 'input_shape' is {shape!r:.60}; a list of positive sizes is"
            " accepted."
        )
    others = {key: content.get(key, {}) for key in ("arch_options", "config", "report")}
    for key, value in others.items():
        if not isinstance(value, dict) or not _is_plain(value):
            raise ModelFileError(
                f"{name}: the entry {key!r} has to be a dictionary of plain values."
            )
    if any(
        len(str(word)) > _MAX_WORD for option in others["arch_options"].items() for word in option
    ):
        raise ModelFileError(
            f"{name}: an option of its architecture has more than {_MAX_WORD} characters."
        )
    graph = parse_graph(content["graph"], name) if "graph" in content else None
    packed = parse_packed(content.get("packed", {}), name)
    sparse = parse_blocks(content.get("blocks", {}), name)
    weights = {f"{layer}.weight": codes.dequantize() for layer, codes in packed.items()}
    weights |= {f"{layer}.weight": weight for layer, weight in sparse.items()}
    sizes = {layer: content["blocks"][layer]["n"] for layer in sparse}
    counters = {
        key.replace("running_mean", _COUNTER): torch.tensor(0)
        for key in state
        if key.endswith("running_mean")
    }
    state = {
        key: value.float() if value.dtype == torch.float16 else value
        for key, value in {**counters, **state, **weights}.items()
    }
    found = {"packed": packed, "blocks": sizes, "graph": graph, **others}
    return CompressedFile(arch=content["arch"], state_dict=state, input_shape=tuple(shape), **found)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    return (
        all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, _PLAIN)
    )
