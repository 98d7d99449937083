"""A float network becomes the same network with the values of its integer layers rounded to
codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import tvm
from torch import Tensor
from tvm import relax

from subpc.calibration.channels import float_weight
from subpc.calibration.equalize import equalizing_factors, scale_channels
from subpc.calibration.insert import insert_fake_quantize, set_weight
from subpc.calibration.interpret import Interpreter
from subpc.calibration.observe import in_batches, matched, observe
from subpc.calibration.pairs import pair_codes
from subpc.calibration.places import Places, Wanted, find_places
from subpc.calibration.ranges import DEFAULT_METHOD, METHODS, TensorStatistics
from subpc.calibration.stand_ins import stand_ins
from subpc.calibration.weights import as_array, bias_correction, int8_codes
from subpc.errors import UnsupportedModelError
from subpc.frontend.imported_model import MAX_LAYERS_NAMED
from subpc.frontend.messages import printable
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite
from subpc.schedules.quantization import Quantization

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten

# So many given images run through the graph at once.
_BATCH = 8
# Codes (out, ...) int8, scales (out,) float32, bias (out,) float32.
CodedWeight = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How values become codes.

    method: of ranges, one of METHODS; equalize: whether channels are scaled to the same range;
    match: whether stand-ins are brought to what batch norms expect; correct: whether biases make
    good what rounding weights changes the expected results by; layers: which layers, by name,
    compute in integers; pairs: whether two codes of a convolution that meet have to fit 16 bits, as
    they have to for vpmaddubsw.
    """

    method: str = DEFAULT_METHOD
    equalize: bool = False
    match: bool = False
    correct: bool = True
    layers: Wanted = lambda name: True
    pairs: bool = False


def quantize(
    network: "Rewritten",
    inputs: Tensor | Sequence[Tensor] | None = None,
    settings: Settings | None = None,
) -> tvm.IRModule:
    """The network with `fake_quantize` and `dequantize` for everything that integer layers read.

    inputs: for each input (n, ...) an array (k n, ...) of its type, with one k for all, or the one
    array; without them stand-ins are made. Raises UnsupportedModelError where weights are not
    finite, ConfigError where other values are not.
    """
    return calibrate(network, inputs, settings).rounded()


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A network of floats, and what was measured of its tensors: it can be rounded to codes as
    often as wanted, each time in other layers.

    inputs: what was measured on; coded: codes, scales and bias of layers, made once.
    """

    network: "Rewritten"
    inputs: tuple[Tensor, ...]
    settings: Settings
    statistics: Mapping[relax.Var, TensorStatistics]
    factors: Mapping[relax.Var, Tensor]
    coded: dict[relax.Var, CodedWeight] = field(default_factory=dict)

    def rounded(self, wanted: Wanted | None = None) -> tvm.IRModule:
        """The network with the layers that are `wanted` in codes; without it all of Settings."""
        places = find_places(self.network.graph, wanted or self.settings.layers)
        quantizations = self.quantizations(places)

        def edit(edited: Dataflow) -> None:
            if self.factors:
                scale_channels(edited, self.factors)
            for layer in places.layers:
                coded = self.weight(edited, layer)
                if coded is not None:
                    set_weight(edited, layer, *coded)
            insert_fake_quantize(edited, quantizations)

        return rewrite(self.network.module, edit)

    def quantizations(self, places: Places) -> dict[relax.Var, Quantization]:
        """What each tensor of codes is rounded to."""
        found: dict[relax.Var, Quantization] = {}
        for group in places.groups:
            whole = self.statistics[group[0]]
            for other in group[1:]:
                whole = whole.merge(self.statistics[other])
            found.update(dict.fromkeys(group, METHODS[self.settings.method](whole)))
        return found

    def weight(self, graph: Dataflow, layer: relax.Var) -> CodedWeight | None:
        """What a layer of the graph has in the place of its float weights and bias; None where
        those are codes already, which stay."""
        call = graph.exprs[layer]
        rows, bias = float_weight(graph, call), constant_of(graph.resolve(call.args[2]))
        if rows is None or bias is None:
            return None
        if layer not in self.coded:
            mean = self.statistics[graph.resolve(call.args[0])].channel_mean
            self.coded[layer] = _coded(call, torch.from_numpy(np.array(rows)), bias, mean, self)
        return self.coded[layer]


def calibrate(
    network: "Rewritten",
    inputs: Tensor | Sequence[Tensor] | None = None,
    settings: Settings | None = None,
) -> Calibrated:
    """Measure a network's tensors, as for `quantize`."""
    settings = settings or Settings()
    graph = Dataflow(network.module["main"])
    places = find_places(graph, settings.layers)
    _check_weights(graph, places)
    meanings, together = None, _BATCH
    if inputs is None:
        inputs = stand_ins(graph, network.norms)
        together = max(
            (len(x) for x in inputs if x.dim()), default=1
        )  # batch norms see all of them
        meanings = matched(network.norms) if settings.match else None
    interpreter = Interpreter(network.module, meanings=meanings)
    given = [inputs] if isinstance(inputs, Tensor) else inputs
    batches = in_batches(graph, given, together)
    wanted = _observed(graph, places)
    statistics = observe(interpreter, wanted, batches)
    factors: dict[relax.Var, Tensor] = {}
    if settings.equalize:
        factors = equalizing_factors(graph, statistics)
        statistics = observe(interpreter, wanted, batches, factors)
    return Calibrated(
        network=replace(network, graph=graph),
        inputs=tuple(given),
        settings=settings,
        statistics=statistics,
        factors=factors,
    )


def _check_weights(graph: Dataflow, places: Places) -> None:
    """UnsupportedModelError for weights and biases that have no codes."""
    wrong = []
    for layer in places.layers:
        call = graph.exprs[layer]
        known = [constant_of(graph.resolve(arg)) for arg in call.args[1:3]]
        if not all(values is None or np.isfinite(values).all() for values in known):
            wrong.append(ops.layer_of(call))
    if wrong:
        more = len(wrong) - MAX_LAYERS_NAMED
        shown = ", ".join(map(printable, wrong[:MAX_LAYERS_NAMED]))
        shown += f" and {more} more" if more > 0 else ""
        raise UnsupportedModelError(
            f"layer {shown}: weights that are not finite (NaN or infinite), which int8 has no codes"
            " for; repair the model's file, or take precision float32."
        )


def _observed(graph: Dataflow, places: Places) -> set[relax.Var]:
    """Tensors that become codes, and those that integer layers read."""
    read = {graph.resolve(graph.exprs[layer].args[0]) for layer in places.layers}
    return read.union(*places.groups)


def _coded(
    call: relax.Call, weight: Tensor, bias: np.ndarray, mean: Tensor, calibrated: Calibrated
) -> CodedWeight:
    """Codes of float weights (out, ...). mean: of the channels that the layer reads."""
    pairs = calibrated.settings.pairs and call.op.name == ops.CONV2D
    codes, scales = pair_codes(weight) if pairs else int8_codes(weight)
    if calibrated.settings.correct:
        coded = codes * scales.reshape(-1, *(1,) * (codes.dim() - 1))
        groups = ops.attributes(call).get("groups", 1)
        bias = bias + bias_correction(weight, coded, mean, groups).numpy()
    return as_array(codes), as_array(scales), bias.astype("float32")
