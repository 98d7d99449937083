"""What a data-free compression method is to the rest of subpc: the search for its strength, files,
reports, the command line.

An object of this protocol stands in each method's folder, in method.py, and is registered in
registry.py. It needs no PyTorch until it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from subpc.algorithms.config import INPUTS, C
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subpc.algorithms.numerics.quantizers import Quantized
    from subpc.algorithms.report import DataFreeReport, LayerResult

# Fields of a configuration and their values: one step of a search for the strongest compression.
Setting = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One field of a configuration as an option of the command line; its type and default are those
    of the field.

    setting: the field's name. help: one sentence. spelling: the option where it is not the field's
    name, `--yes/--no` for a bool.
    accepted: the words that are accepted, for a str. none: the number that stands for None where
    the field may be None.
    metavar: what the help calls a value of a setting with several.
    """

    setting: str
    help: str
    spelling: str = ""
    accepted: Sequence[str] = ()
    none: int | None = None
    metavar: str = "LAYER"


INPUTS_OPTION = Option(
    setting="inputs",
    help=(
        "Followed with where no images are given: random images, matched to the batch norms or not,"
        " or normal variables."
    ),
    accepted=INPUTS,
)
FEEDBACK_OPTION = Option(
    setting="feedback",
    help=(
        "Make each rounding error good by the weights that follow (GPTQ). [default: with images,"
        " random ones too]"
    ),
)
SKIP_OPTION = Option(setting="skip", help="Leave this layer alone; repeat for several.")


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """What a method makes of a network.

    model: the compressed copy. codes: {layer: its quantized weight}. blocks: {layer: N} of the
    layers whose zeros are 1xN blocks.
    """

    model: "nn.Module"
    report: "DataFreeReport"
    codes: "dict[str, Quantized]" = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)


def idle_inputs(follows_network: bool, report: "DataFreeReport") -> dict[str, str]:
    """The part of `idle` about the setting `inputs`: images that are given take its place."""
    if not follows_network:
        return {"inputs": "the other settings look at weights alone"}
    return {} if report.inputs.startswith("none") else {"inputs": "images were given"}


class CompressionMethod(Protocol[C]):
    """One data-free method with configurations of the class `config`.

    name: of the command and in reports. title: one line for the list of methods. text, examples:
    for the command's help.
    options: the settings that the command line has. without_batch_norms: what is left to do in a
    network that has none.
    """

    name: str
    config: type[C]
    title: str
    text: str
    examples: tuple[str, ...]
    options: tuple[Option, ...]
    without_batch_norms: str

    def ladders(self, fixed: frozenset[str]) -> list[list[Setting]]:
        """Lists of settings, each from gentle to strong, to be climbed one after the other; `fixed`
        names what the user decided.

        Empty where the user decided everything.
        """
        ...

    def gentlest(self, config: C, fixed: frozenset[str]) -> C:
        """Where a search starts: `config` with everything at its gentlest that the ladders change
        and the user did not decide."""
        ...

    def without(self, config: C, layers: tuple[str, ...]) -> C:
        """The configuration that leaves the layers of these dotted names alone, too."""
        ...

    def summary(self, layers: "Sequence[LayerResult]") -> list[str]:
        """What was done to the network, in a few words each; widths of the weights are told for
        every method."""
        ...

    def idle(self, config: C, report: "DataFreeReport") -> dict[str, str]:
        """{setting: why it changed nothing in the network of the report}, whatever its value is."""
        ...

    def run(
        self,
        model: "nn.Module",
        config: C,
        progress: Progress,
        *,
        images: "torch.Tensor | None",
        input_shape: tuple[int, ...] | None,
    ) -> Compressed:
        """Compress a copy of `model`.

        images: normalised ones (p, c, h, w) to measure on, None where there are none. input_shape:
        (n, c, h, w) of the network, None where it is not known. Raises ConfigError, ModelFileError,
        UnsupportedModelError.
        """
        ...
