"""What layers are expected to take in float32 and in bytes: the order in which measurements have
them."""

import pytest
import torch
from torch import nn

from subpc.calibration.quantize import quantize
from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow
from subpc.passes.decide_layers import decide_layers
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.passes.predicted_time import START_NS, Times, conversion_ns, predicted_times
from subpc.schedules.isa import AVX2, AVX512, AVX512_VNNI, VectorIsa
from tests.passes.test_end_to_end import prune_blocks

SHAPE = (1, 64, 28, 28)


def network(*layers: nn.Module, isa: VectorIsa) -> Rewritten:
    (imported,) = import_model(nn.Sequential(*layers).eval(), example_inputs=torch.zeros(SHAPE))
    return rewrite_model(imported, isa=isa, sparse="auto")


def times(layer: nn.Module, isa: VectorIsa = AVX512_VNNI) -> Times:
    found = network(layer, isa=isa)
    ((var, call),) = found.graph.calls(ops.CONV2D, ops.LINEAR)
    return predicted_times(found.graph, var, found.decisions[ops.attributes(call)["name"]], isa)


def gain(layer: nn.Module, isa: VectorIsa = AVX512_VNNI) -> float:
    found = times(layer, isa)
    return found.floats / found.integers


def test_vnni_multiplies_four_times_as_many_bytes_as_floats_and_has_more_to_do() -> None:
    assert 3 < gain(nn.Conv2d(64, 64, 1)) < 4.3
    assert 3 < gain(nn.Conv2d(64, 64, 5, padding=2)) < 4.3


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
def test_without_it_bytes_gain_less(isa: VectorIsa) -> None:
    """docs/integers.md: 435 Gop/s become 224, 215 on half as many lanes."""
    layer = nn.Conv2d(64, 64, 5, padding=2)
    assert 0.4 < gain(layer, isa) / gain(layer) < 0.6


@pytest.mark.parametrize("isa", [AVX512_VNNI, AVX512, AVX2], ids=lambda isa: isa.name)
def test_bytes_gain_less_where_floats_have_winograds_formula(isa: VectorIsa) -> None:
    wanted, other = (nn.Conv2d(64, 64, 3, padding=1, dilation=d) for d in (1, 2))
    assert gain(wanted, isa) < 0.8 * gain(other, isa)


def test_skipped_blocks_save_time_in_both() -> None:
    dense, sparse = nn.Conv2d(64, 64, 5, padding=2), nn.Conv2d(64, 64, 5, padding=2)
    prune_blocks(sparse.weight, 16, 0.75)
    whole, rest = times(dense), times(sparse)
    assert 0.2 < rest.floats / whole.floats < 0.4
    assert 0.2 < rest.integers / whole.integers < 0.4


def test_filters_of_one_channel_gain_too() -> None:
    assert 1 < gain(nn.Conv2d(64, 64, 3, padding=1, groups=64)) < 4.3


def test_codes_of_a_file_that_may_not_fit_in_pairs_take_longer() -> None:
    floats = network(nn.Conv2d(64, 64, 5, padding=2), isa=AVX512)
    graph = Dataflow(quantize(floats)["main"])
    ((var, _),) = graph.calls(ops.CONV2D)
    decision = decide_layers(graph, AVX512)["0"]
    words = predicted_times(graph, var, decision, AVX512)
    assert 1.2 < words.integers / times(nn.Conv2d(64, 64, 5, padding=2), AVX512).integers < 1.4


def test_converting_takes_a_start_and_time_for_each_element() -> None:
    assert conversion_ns(0, AVX512) == START_NS
    assert conversion_ns(1_000_000, AVX512) > 100 * START_NS
