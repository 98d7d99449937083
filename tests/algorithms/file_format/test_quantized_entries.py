"""Packed weights of a file: what they hold is what was written, or they are refused."""

import pytest
import torch

from subpc.algorithms.file_format.quantized_entries import packed_entries, parse_packed
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.errors import ModelFileError


def layer(codes: list[int], bits: int, *, ternary: bool) -> Quantized:
    stored = torch.tensor(codes, dtype=torch.uint8).reshape(len(codes), 1)
    return Quantized(codes=stored, scale=torch.ones(1), bits=bits, ternary=ternary)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_of_a_width_comes_back(bits: int) -> None:
    codes = list(range(2**bits))
    found = parse_packed(packed_entries({"a": layer(codes, bits, ternary=False)}), "m.pt")
    assert found["a"].codes.flatten().tolist() == codes


@pytest.mark.parametrize(("code", "bits"), [(3, 2), (200, 8)])
def test_ternary_codes_that_stand_for_nothing_are_refused(code: int, bits: int) -> None:
    entries = packed_entries({"conv": layer([0, 2, 1, code], bits, ternary=True)})
    with pytest.raises(ModelFileError, match=f"'conv' has the ternary code {code}; 0 to 2") as e:
        parse_packed(entries, "m.pt")
    assert len(str(e.value).splitlines()) == 1


def test_codes_of_a_wider_type_are_refused() -> None:
    entries = packed_entries({"conv": layer([0, 1], 3, ternary=False)})
    entries["conv"]["codes"] = torch.tensor([300], dtype=torch.int16)
    with pytest.raises(ModelFileError, match="does not hold 2 codes of 3 bits"):
        parse_packed(entries, "m.pt")
