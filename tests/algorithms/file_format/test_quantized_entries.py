"""Packed weights of a file: what they hold is what was written, or they are refused."""

import pytest
import torch

from subpc.algorithms.file_format.quantized_entries import packed_entries, parse_packed
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.errors import ModelFileError


def layer(codes: list[int], bits: int, *, has_zero: bool) -> Quantized:
    stored = torch.tensor(codes, dtype=torch.uint8).reshape(len(codes), 1)
    return Quantized(codes=stored, scale=torch.ones(1), bits=bits, has_zero=has_zero)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_of_a_width_comes_back(bits: int) -> None:
    codes = list(range(2**bits))
    found = parse_packed(packed_entries({"a": layer(codes, bits, has_zero=False)}), "m.pt")
    assert found["a"].codes.flatten().tolist() == codes


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_codes_beyond_the_largest_level_are_refused(bits: int) -> None:
    """Levels with a zero are an odd number: the last code of the width stands for nothing."""
    last = 2**bits - 1
    entries = packed_entries({"conv": layer([0, 1, last], bits, has_zero=True)})
    with pytest.raises(ModelFileError, match=f"'conv' has the code {last}; {last - 1} is") as e:
        parse_packed(entries, "m.pt")
    assert len(str(e.value).splitlines()) == 1


def test_codes_of_a_wider_type_are_refused() -> None:
    entries = packed_entries({"conv": layer([0, 1], 3, has_zero=False)})
    entries["conv"]["codes"] = torch.tensor([300], dtype=torch.int16)
    with pytest.raises(ModelFileError, match="does not hold 2 codes of 3 bits"):
        parse_packed(entries, "m.pt")
