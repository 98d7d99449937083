"""Each layer in what is faster for it, in codes only where the network's results stay what they
are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tvm
from torch import Tensor

from subpc.calibration.best import choose_calibration
from subpc.calibration.cheapest import Costs, cheapest, costs_of
from subpc.calibration.noise import BOUND, Noise, quiet_layers
from subpc.calibration.places import Places, find_places
from subpc.calibration.quantize import Settings, calibrate
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.library.report import FLOATS, INTEGERS
from subpc.passes import ops
from subpc.passes.codes import INTEGER_LAYERS
from subpc.passes.dataflow import Dataflow, rewrite
from subpc.passes.fold_input_affine import fold_input_affine
from subpc.schedules.isa import VectorIsa
from subpc.text import first_line

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A network with some of its layers rounded to codes, each layer with the attribute why_float
    or why_integers; note: what came of it, one line."""

    module: tvm.IRModule
    note: str


def mix(
    network: "Rewritten",
    inputs: Tensor | Sequence[Tensor] | None,
    settings: Settings,
    isa: VectorIsa,
) -> Mixed:
    """The network with those layers in codes that are predicted to be faster for it, as long as all
    of them together leave the outputs BOUND dB above the noise.

    inputs: as for `quantize`. Where values or weights are not finite everything stays as it is, and
    the note says so.
    """
    places = find_places(network.graph, settings.layers)
    try:
        calibrated = (
            calibrate(network, None, settings)
            if inputs is None
            else choose_calibration(network, inputs, settings).calibrated
        )
    except (ConfigError, UnsupportedModelError) as error:
        return _in_floats(network, places, f"everything in {FLOATS}: {first_line(error)}")
    costs = costs_of(network.graph, places, network.decisions, isa)
    noise = Noise(calibrated)
    choice = _choose(noise, costs)
    module = calibrated.rounded(lambda name: name in choice.layers)
    if not choice.layers:  # nothing is rounded between a batch norm and its convolution
        module = fold_input_affine(module)
    reasons = {name: _reason(name, choice, costs) for name in costs.times}
    note = f"{len(choice.layers)} of {len(reasons)} layers in {INTEGERS}"
    if choice.layers:
        note += (
            f", noise {_decibels(choice.below)} below the signal on {noise.samples} calibration"
            f" inputs (bound: {_decibels(BOUND)})"
        )
    return Mixed(module=_explained(module, reasons), note=note)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """layers: in codes, which leave the signal so many dB `below` itself as noise; noisy: those
    that would be faster, but are left out; alone: dB of each layer's own noise, where measured."""

    layers: set[str]
    noisy: set[str]
    alone: dict[str, float]
    below: float


def _choose(noise: Noise, costs: Costs) -> _Choice:
    faster = cheapest(costs)
    below = noise.below_signal(faster)
    if below >= BOUND:
        return _Choice(layers=faster, noisy=set(), alone={}, below=below)
    alone: dict[str, float] = {}
    quiet = set(quiet_layers(noise, [name for name in costs.times if name in faster], alone))
    noisy = faster - quiet
    # What is left between them may be too little to be worth converting.
    layers = cheapest(costs, noisy) & quiet
    below = noise.below_signal(layers)
    if below < BOUND:
        layers, below = quiet, noise.below_signal(quiet)
    return _Choice(layers=layers, noisy=noisy, alone=alone, below=below)


def _reason(name: str, choice: _Choice, costs: Costs) -> tuple[str, str]:
    """The attribute of the layer that says why, and what it says."""
    times = costs.times[name]
    predicted = f"predicted {times.floats / times.integers:.1f}x as fast"
    slower = times.floats <= times.integers
    if name in choice.layers:
        why = f"{predicted} as in {FLOATS}"
        return "why_integers", why + ", but without conversions" * slower
    if name in choice.noisy:
        own = _decibels(choice.alone[name])
        return "why_float", (
            f"too much noise in {INTEGERS} (its own is {own} below the signal, that of all layers"
            f" has to be {_decibels(BOUND)})"
        )
    converting = ", but for conversions" * (not slower)
    return "why_float", f"not faster in {INTEGERS} ({predicted}{converting})"


def _decibels(value: float) -> str:
    return "nothing" if value == float("inf") else f"{value:.1f} dB"


def _explained(module: tvm.IRModule, reasons: Mapping[str, tuple[str, str]]) -> tvm.IRModule:
    """The module with the reasons in its layers; what another pass said already stays."""

    def edit(graph: Dataflow) -> None:
        for var, call in graph.calls(*INTEGER_LAYERS):
            said, name = ops.attributes(call), ops.layer_of(call)
            if name in reasons and reasons[name][0] not in said:
                said = {**said, reasons[name][0]: reasons[name][1]}
                graph.rebind(var, ops.with_attributes(call, None, **said))

    return rewrite(module, edit)


def _in_floats(network: "Rewritten", places: Places, note: str) -> Mixed:
    """The network as it is, for a reason that all layers share."""
    names = {ops.layer_of(network.graph.exprs[layer]) for layer in places.layers}
    module = _explained(
        fold_input_affine(network.module),
        dict.fromkeys(names, ("why_float", "values that are not finite")),
    )
    return Mixed(module=module, note=note)
