"""TorchScript to an exported program: torch.export runs the script under its tracer, then the
weights get their names back."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.errors import ModelFileError, SubpcError, UnsupportedModelError
from subpc.frontend.files.archive import Archive
from subpc.frontend.files.script.check import load_checked
from subpc.frontend.files.script.growth import MOST_ELEMENTS, too_long
from subpc.frontend.files.script.loops import MOST_TURNS, too_many_turns
from subpc.frontend.from_torch.export import export
from subpc.frontend.messages import first_line

NOTE = (
    "TorchScript traced again with torch.export: control flow is fixed to what this input shape"
    " takes"
)


class _Script(nn.Module):
    """Hides a ScriptModule from torch.export, which would refuse it, but runs it under the tracer
    all the same."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        object.__setattr__(self, "script", script)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the script computes."""
        # Not by a call: a script that was not loaded from a file would show torch.export the Python
        # that it was made of.
        script: Any = self.script
        return script._c._get_method("forward")(*inputs)


def load_torchscript(archive: Archive) -> torch.jit.ScriptModule:
    """The script in `archive`, on the CPU."""
    try:
        return load_checked(archive)
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{archive.name} is not a TorchScript file this version of torch can read:"
            f" {first_line(error)}\nSave the script before torch.jit.optimize_for_inference, and"
            " with this version of torch."
        ) from error


def export_script(
    script: torch.jit.ScriptModule, example_inputs: tuple[Any, ...]
) -> tuple[ExportedProgram, dict[str, str]]:
    """The program, and the original name of each of its constants."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the script itself warns of
            program = export(
                _Script(script),
                example_inputs,
                weights=[*script.parameters(), *script.buffers()],
            )
    except SubpcError as error:
        if error.__cause__ is not None and too_long(error.__cause__):
            raise UnsupportedModelError(
                f"The script makes lists or texts of more than {MOST_ELEMENTS:,} elements.\nExport"
                " the network without them."
            ) from error
        if error.__cause__ is None or not too_many_turns(error.__cause__):
            raise
        raise UnsupportedModelError(
            f"The script does not come to an end: its loops make more than {MOST_TURNS:,} turns.\n"
            "Export the network without loops, or with fewer turns."
        ) from error
    names = {
        value.data_ptr(): name
        for name, value in [*script.named_buffers(), *script.named_parameters()]
    }
    constants = {k: v for k, v in program.constants.items() if isinstance(v, torch.Tensor)}
    return program, {key: names.get(value.data_ptr(), key) for key, value in constants.items()}


def input_names(script: torch.jit.ScriptModule, count: int) -> tuple[str, ...]:
    """The names of the first `count` arguments of the script's forward; empty where it has
    fewer."""
    arguments = [
        str(argument.name)
        for argument in script._c._get_method("forward").schema.arguments[1 : count + 1]
    ]
    return tuple(arguments) if len(arguments) == count else ()
