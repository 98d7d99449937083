"""Compile and run in one line, for trying things out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subpc.runtime.tensors import Value


def compile_and_run(model: Any, *inputs: "Value", target: str = "llvm -mcpu=native") -> Any:
    """Compile the model for these inputs and return its outputs; use `subpc.compile` to run it more
    than once."""
    from subpc.compiler.compile_model import compile

    return compile(model, inputs, target=target)(*inputs)
