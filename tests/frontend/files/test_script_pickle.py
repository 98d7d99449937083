"""The pickles of a script: those that PyTorch writes are read, all others are refused before
anything is made of them."""

import pickle
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.errors import ModelFileError
from subpc.frontend.files.script.pickles import check_pickle
from subpc.frontend.import_model import import_model
from tests.frontend.files.archives import Members, member, read, write
from tests.frontend.small_model import SHAPE, Small, save_script

# In the pickle, conv.weight: 108 elements from 0 in the shape 4x3x3x3, with strides 27, 9, 3, 1.
CHANGES = {
    "more elements than bytes": (b"Kl", b"Km"),
    "a longer stride": (b"K\x1bK\tK\x03K\x01", b"K\xffK\tK\x03K\x01"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_beyond_their_bytes_are_refused(change: str, tmp_path: Path) -> None:
    save_script(Small().eval(), tmp_path / "m.pt")
    members = read(tmp_path / "m.pt")
    name = member(members, "data.pkl")
    assert members[name].count(CHANGES[change][0]) == 1
    changed = {**members, name: members[name].replace(*CHANGES[change])}
    with pytest.raises(ModelFileError, match=r"(than|beyond) its bytes"):
        import_model(write(tmp_path / "m.pt", changed), shapes=[SHAPE])


class Everything(nn.Module):
    """Attributes of every kind that a script can have beside layers, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.again = self.conv
        self.register_buffer("part", self.conv.weight[:, :1].detach())
        self.sizes, self.names, self.flags, self.shares = (
            [1, 2, 1 << 40],
            ["a", "b"],
            [True, False],
            [0.5],
        )
        self.numbers, self.nested, self.pairs = {"x": 1.5}, (1, ("a", None)), [(1, 2), (3, 4)]
        self.tensors, self.by_number = [torch.ones(2), torch.zeros(3)], {1: [torch.ones(2)]}
        self.place, self.kind = torch.device("cpu"), torch.float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (
            self.again(self.conv(x)) * self.sizes[0]
            + self.shares[0] * self.numbers["x"]
            + self.nested[0]
        )
        return y + self.pairs[0][1] + self.tensors[0][0] + self.by_number[1][0][1]


def _members(members: Members) -> Members:
    return {name.partition("/")[2]: content for name, content in members.items()}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Members:
    path = tmp_path_factory.mktemp("script") / "m.pt"
    save_script(Everything().eval(), path)
    return _members(read(path))


def test_everything_that_pytorch_writes_is_read(honest: Members) -> None:
    for name in ("data.pkl", "constants.pkl"):
        check_pickle(name, honest)


def test_no_cut_and_no_continuation_is_read(honest: Members) -> None:
    content = honest["data.pkl"]
    for end in range(0, len(content), 7):
        with pytest.raises(ValueError, match=r"."):
            check_pickle("data.pkl", {**honest, "data.pkl": content[:end]})
    with pytest.raises(ValueError, match="end with one value"):
        check_pickle("data.pkl", {**honest, "data.pkl": content + b"N."})


def _put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def _get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def _doubled(times: int) -> bytes:
    """Each tuple holds the one before twice."""
    return b"N" + b"".join(_put(i) + _get(i) + b"\x86" for i in range(times)) + b"."


def _storage(count: bytes, key: bytes = b"0") -> bytes:
    words = [b"X" + struct.pack("<I", len(word)) + word for word in (b"storage", key, b"cpu")]
    return b"(" + words[0] + b"ctorch\nFloatStorage\n" + words[1] + words[2] + count + b"tQ"


def _tensor(size: bytes, stride: bytes) -> bytes:
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + _storage(b"K\x04")
        + b"K\x00("
        + size
        + b"t("
        + stride
        + b"t\x89NtR"
    )


HOSTILE = {
    "a name": (b"cos\nsystem\n.", "holds an object"),
    "a class of C++": (b"c__torch__.torch\nclasses.profiling.X\n.", "holds an object"),
    "names from the stack": (pickle.dumps(print, 4), "opcode|version"),
    "another protocol": (b"\x80\x03N.", "version"),
    "an extension": (b"\x82\x01.", "opcode"),
    "bytes": (b"C\x01a.", "opcode"),
    "copies of what is on the stack": (b"]" + b"2" * 100 + b".", "opcode"),
    "no pickle at all": (b"\xff\xff", "."),
    "nothing": (b"", "."),
    "a value too few": (b"\x86.", "missing"),
    "a mark too few": (b"Nt.", "mark"),
    "doubled tuples": (_doubled(60), "again and again"),
    "doubled lists": (
        b"]" + b"".join(_put(i) + b"](" + _get(i) * 2 + b"e" for i in range(60)) + b".",
        "again and again",
    ),
    "deep tuples": (b"N" + b"\x85" * 100_000 + b".", "deep"),
    "deep lists": (b"](" * 100_000 + b"e" * 100_000 + b".", "deep"),
    "a list in itself": (b"]q\x00(h\x00e.", "filled"),
    "a dictionary in itself": (b"}q\x00(K\x01h\x00u.", "filled"),
    "an object in itself": (b"c__torch__\nM\n)\x81q\x00h\x00b.", "filled"),
    "a tuple that is filled": (b")(Ne.", "filled"),
    "keys that take for ever": (b"}(" + b"N\x85" + b"Nu.", "keys"),
    "half a pair": (b"}(K\x01u.", "keys"),
    "a memo of four billion entries": (b"N" + _put(0xFFFFFFFF) + b".", "kept as"),
    "a memo out of order": (b"Nq\x01.", "kept as"),
    "a memo of nothing": (b"h\x00.", "not kept"),
    "a huge number": (b"\x8a\x09" + b"\xff" * 8 + b"\x7f.", "64 bits"),
    "more elements than bytes": (_storage(b"K\x05") + b".", "larger than its bytes"),
    "fewer than no elements": (_storage(b"J\xff\xff\xff\xff") + b".", "larger than its bytes"),
    "a storage that is missing": (_storage(b"K\x01", b"9") + b".", "missing"),
    "one storage, read often": (b"(" + _storage(b"K\x01") * 9 + b"t.", "read more than"),
    "a tensor beyond its bytes": (_tensor(b"K\x05", b"K\x01") + b".", "beyond its bytes"),
    "an expanded terabyte": (
        _tensor(b"J\x00\x00\x00\x40J\x00\x01\x00\x00", b"K\x00K\x00") + b".",
        "far larger",
    ),
    "negative extents": (_tensor(b"J\xff\xff\xff\xff", b"K\x01") + b".", "impossible"),
    "a call of a class": (b"c__torch__\nM\n)R.", "no function"),
    "an object of a function": (b"ctorch\ndevice\n)\x81.", "no class"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_pytorch_does_not_write_is_refused_at_once(case: str) -> None:
    content, reason = HOSTILE[case]
    members = {"data.pkl": content, "data/0": bytes(16)}
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError, match=reason):
            check_pickle("data.pkl", members)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5


def test_a_tensor_in_its_bytes_is_read() -> None:
    check_pickle(
        "data.pkl", {"data.pkl": _tensor(b"K\x02K\x02", b"K\x02K\x01") + b".", "data/0": bytes(16)}
    )


def _is_read(content: bytes) -> bool:
    try:
        check_pickle("data.pkl", {"data.pkl": content})
    except ValueError:
        return False
    return True


def test_of_all_opcodes_these_alone_make_a_value_of_nothing() -> None:
    assert bytes(code for code in range(256) if _is_read(bytes([code]) + b".")) == bytes(
        sorted(b"N\x88\x89]})")
    )
