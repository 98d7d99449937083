"""What every importer returns: one Relax function with its weights kept outside, each under the
name its author gave it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tvm

from subpc.algorithms.numerics.quantizers import Quantized
from subpc.frontend.messages import layer_of, printable
from subpc.frontend.weight_codes import WeightCodes
from subpc.library.report import FALLBACK, LayerReport, TensorInfo


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A model for one input shape: `module["main"]` takes the user inputs first, then one parameter
    per entry of `params`.

    facts: what a compressed file says of how it was made.
    packed: codes, scales and widths of the layers that the file has them of, untouched; params has
    their float32 values. codes: of parameters that the file has as whole numbers, by the name of
    the Relax variable.
    """

    module: tvm.IRModule
    input_names: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    input_dtypes: tuple[str, ...]
    output_names: tuple[str, ...]
    params: dict[str, np.ndarray]  # name of the Relax variable -> its float32 value
    param_names: dict[
        str, str
    ]  # name of the Relax variable -> original name, such as "layer1.0.conv1.weight"
    notes: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    packed: dict[str, Quantized] = field(default_factory=dict)
    codes: dict[str, WeightCodes] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The user inputs, in order."""
        known = zip(self.input_names, self.input_shapes, self.input_dtypes, strict=True)
        return tuple(
            TensorInfo(name=name, shape=shape, dtype=dtype) for name, shape, dtype in known
        )

    def with_notes(self, *notes: str) -> "ImportedModel":
        """The same model with `notes` put before its own."""
        return replace(self, notes=(*notes, *self.notes))


# A network full of NaN would otherwise fill the screen.
MAX_LAYERS_NAMED = 5


def weight_warnings(params: dict[str, np.ndarray], param_names: dict[str, str]) -> tuple[str, ...]:
    """One warning per kind of value that no trained network has, naming the layers.

    params: arrays of any shape by parameter; param_names: the user's name of each.
    """
    found = {"NaN": np.isnan, "infinite values": np.isinf}
    warnings = []
    for what, test in found.items():
        layers = list(
            dict.fromkeys(
                layer_of(param_names[name]) for name, value in params.items() if test(value).any()
            )
        )
        if layers:
            warnings.append(f"weights of {_listed(layers)} contain {what}: the outputs will too")
    return tuple(warnings)


def fallback_warnings(layers: Sequence[LayerReport]) -> tuple[str, ...]:
    """One warning for each reason for which convolutions run in the fallback, naming the first of
    them."""
    reasons: dict[str, list[str]] = {}
    for layer in layers:
        if layer.kernel == FALLBACK and layer.kind == "conv":
            reasons.setdefault(layer.reason.split(":")[0], []).append(layer.name)
    return tuple(
        f"in the fallback, many times slower than with a kernel: {_listed(names)} ({reason})"
        for reason, names in reasons.items()
    )


def _listed(layers: list[str]) -> str:
    shown = ", ".join(printable(layer) for layer in layers[:MAX_LAYERS_NAMED])
    more = len(layers) - MAX_LAYERS_NAMED
    return f"layer {shown}" + (f" and {more} more" if more > 0 else "")
