"""A float graph becomes the same graph with all values of its integer layers rounded to codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import tvm
from torch import Tensor
from tvm import relax

from subpc.calibration.insert import insert_fake_quantize, set_weight
from subpc.calibration.interpret import Interpreter
from subpc.calibration.places import Places, Wanted, find_places
from subpc.calibration.ranges import DEFAULT_METHOD, METHODS, TensorStatistics
from subpc.calibration.stand_ins import stand_ins
from subpc.calibration.weights import as_array, bias_correction, int8_codes
from subpc.errors import ConfigError
from subpc.passes import ops
from subpc.passes.codes import weight_codes
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of
from subpc.schedules.quantization import Quantization

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten

# So many images run through the graph at once.
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How values become codes.

    method: of ranges, one of METHODS; correct: whether biases make good what rounding weights
    changes the expected results by; layers: which layers, by name, compute in integers.
    """

    method: str = DEFAULT_METHOD
    correct: bool = True
    layers: Wanted = lambda name: True


def quantize(
    network: "Rewritten", images: Tensor | None = None, settings: Settings | None = None
) -> tvm.IRModule:
    """The network with `fake_quantize` and `dequantize` for everything that integer layers read.

    images: inputs (p, ...) of a network with one input, p a multiple of its first extent; without
    them stand-ins are made. Raises ConfigError where values are not finite.
    """
    settings, module, graph = settings or Settings(), network.module, network.graph
    if images is None:
        images = stand_ins(shape_of(graph.inputs[0]))
    places = find_places(graph, settings.layers)
    statistics = observe(module, places, images)
    return rewrite(module, lambda edited: _insert(edited, places, statistics, settings))


def observe(
    module: tvm.IRModule, places: Places, images: Tensor
) -> dict[relax.Var, TensorStatistics]:
    """Statistics of each tensor that becomes codes, and of each that an integer layer reads."""
    interpreter = Interpreter(module)
    graph = interpreter.graph
    wanted = {var for group in places.groups for var in group}
    wanted |= {graph.resolve(graph.exprs[layer].args[0]) for layer in places.layers}
    found = {var: TensorStatistics() for var in wanted}

    def add(var: relax.Var, x: Tensor) -> None:
        if var in found:
            try:
                found[var].add(x)
            except ConfigError as error:
                raise ConfigError(
                    f"{var.name} has {error} for the images given; int8 needs finite ones."
                ) from error

    for batch in torch.split(images, _BATCH):
        for var in graph.inputs:
            add(var, batch)
        interpreter.run(batch, watch=add)
    return found


def _insert(
    graph: Dataflow,
    places: Places,
    statistics: Mapping[relax.Var, TensorStatistics],
    settings: Settings,
) -> None:
    for layer in places.layers:
        if weight_codes(graph, graph.exprs[layer]) is not None:
            continue  # those of the file, as they are
        x = graph.resolve(graph.exprs[layer].args[0])
        _code_weight(graph, layer, statistics[x].channel_mean, settings)
    quantizations: dict[relax.Var, Quantization] = {}
    for group in places.groups:
        whole = statistics[group[0]]
        for other in group[1:]:
            whole = whole.merge(statistics[other])
        quantizations.update(dict.fromkeys(group, METHODS[settings.method](whole)))
    insert_fake_quantize(graph, quantizations)


def _code_weight(graph: Dataflow, layer: relax.Var, mean: Tensor, settings: Settings) -> None:
    call = graph.exprs[layer]
    attrs = ops.attributes(call)
    weight = _tensor(graph, call.args[1])
    if attrs.get("transposed"):
        weight = weight.T
    bias = _tensor(graph, call.args[2])
    codes, scales = int8_codes(weight)
    if settings.correct:
        coded = codes * scales.reshape(-1, *(1,) * (codes.dim() - 1))
        bias = bias + bias_correction(weight, coded, mean, attrs.get("groups", 1)).float()
    set_weight(graph, layer, as_array(codes), as_array(scales), as_array(bias))


def _tensor(graph: Dataflow, value: relax.Expr) -> Tensor:
    array = constant_of(graph.resolve(value))
    assert array is not None
    return torch.from_numpy(np.array(array))
