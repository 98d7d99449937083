"""`torch.compile(model, backend="subpc")`: graphs that PyTorch captures run as compiled libraries,
the others in PyTorch.

Registered through the entry point group `torch_dynamo_backends`, as PyTorch documents it for
packages.
"""

import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from subpc.compiler.precision import check_precision
from subpc.errors import ConfigError, SubpcError, UnsupportedModelError
from subpc.frontend.one_at_a_time import capturing
from subpc.library.report import FLOATS

if TYPE_CHECKING:
    import torch
    from torch import fx, nn
    from torch.export import ExportedProgram

    from subpc.runtime.model import CompiledModel

Key = tuple[tuple[int, ...] | int, ...]
OPTIONS = ("target", "threads", "sparse", "precision", "calibration")
# Each set of input shapes is compiled by itself; a program that has more of them is better off
# without.
MAX_SHAPES = 8
# How PyTorch names the weights of a module that it captures:
# l_self_modules_layer1_modules_0_parameters_weight_.
_PREFIX, _PARTS = "l_self_", re.compile(r"(?:^|_)(?:modules|parameters|buffers)_")


class GraphFallbackWarning(RuntimeWarning):
    """A graph of a torch.compile'd model runs in PyTorch; the message says why."""


def backend(
    graph: "fx.GraphModule",
    example_inputs: "Sequence[Any]",
    *,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """What PyTorch calls with a captured graph: returns the function that takes its place.

    Args:
        graph: the graph; weights are among its inputs.
        example_inputs: a value for each input.
        options: OPTIONS, as subpc.compile takes them.

    Raises:
        SubpcError: an option is wrong. Nothing else: graphs that cannot be compiled run in PyTorch,
            with a GraphFallbackWarning.
    """
    _check_options(options or {})
    reason = _refusal(graph, example_inputs)
    if reason:
        _warn(reason)
        return graph.forward
    return CompiledGraph(graph, example_inputs, dict(options or {}))


def _check_options(options: Mapping[str, Any]) -> None:
    from subpc.machine.target import parse_target
    from subpc.machine.threads import resolve_threads
    from subpc.passes.sparse_modes import check_sparse

    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigError(
            f"options {', '.join(map(repr, unknown))} are not known; accepted: {', '.join(OPTIONS)}"
        )
    resolve_threads(options.get("threads"))
    parse_target(options.get("target", "llvm -mcpu=native"))
    check_sparse(options.get("sparse", "auto"))
    check_precision(options.get("precision", FLOATS), options.get("calibration"))


def _refusal(graph: "fx.GraphModule", example_inputs: "Sequence[Any]") -> str:
    """Why the graph cannot be compiled, as far as that shows before trying; empty if nothing is
    against it."""
    import torch

    tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return (
            "gradients are wanted; call the model under torch.no_grad() or torch.inference_mode()"
        )
    elsewhere = sorted({str(tensor.device) for tensor in tensors if tensor.device.type != "cpu"})
    if elsewhere:
        return f"it has tensors on {', '.join(elsewhere)}; subpc compiles for CPUs"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on; subpc computes in float32"
    (output,) = graph.graph.find_nodes(op="output")
    results = [
        node.meta.get("example_value") if isinstance(node, torch.fx.Node) else node
        for node in output.args[0]
    ]
    if not results or not all(isinstance(value, torch.Tensor) for value in results):
        return "it returns something else than tensors"
    return ""


class CompiledGraph:
    """A captured graph, compiled once for each set of input shapes that it is called with."""

    def __init__(
        self, graph: "fx.GraphModule", example_inputs: "Sequence[Any]", options: dict[str, Any]
    ) -> None:
        from torch import nn

        self._graph, self._options, self._lock = graph, options, threading.Lock()
        # PyTorch marks what belongs to the model: such a tensor is the same one at every call,
        # though it may be written to.
        static = [
            isinstance(v, nn.Parameter) or getattr(v, "_dynamo_static_input_type", None) is not None
            for v in example_inputs
        ]
        self._weights = {
            index: example_inputs[index] for index, is_static in enumerate(static) if is_static
        }
        self._versions = self._current()
        self._libraries: dict[Key, CompiledModel] = {}
        self._eager = False

    def __call__(self, *arguments: Any) -> Any:
        """Run the graph on these inputs, compiling first where the shapes are new."""
        if self._eager:
            return self._graph(*arguments)
        key = tuple(
            v if isinstance(v, int) else tuple(v.shape)
            for i, v in enumerate(arguments)
            if i not in self._weights
        )
        try:
            library = self._library(key, arguments)
        except Exception as error:
            # PyTorch can run what we cannot, whatever the reason: the user gets an answer, and is
            # told.
            self._eager = True
            _warn(
                str(error).splitlines()[0]
                if isinstance(error, SubpcError)
                else f"{type(error).__name__}: {error}"[:300]
            )
            return self._graph(*arguments)
        outputs = library(*self._tensors(arguments))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def _tensors(self, arguments: "Sequence[Any]") -> "list[torch.Tensor]":
        return [
            v for i, v in enumerate(arguments) if i not in self._weights and not isinstance(v, int)
        ]

    def _current(self) -> list[tuple[int, int]]:
        # Inference tensors count no versions; nor can they be written to outside of inference mode.
        return [
            (w.data_ptr(), 0 if w.is_inference() else w._version) for w in self._weights.values()
        ]

    def _library(self, key: Key, arguments: "Sequence[Any]") -> "CompiledModel":
        with self._lock:
            self._weights = {index: arguments[index] for index in self._weights}
            if (versions := self._current()) != self._versions:
                self._libraries, self._versions = (
                    {},
                    versions,
                )  # weights were loaded or trained meanwhile
            if key not in self._libraries:
                if len(self._libraries) >= MAX_SHAPES:
                    raise UnsupportedModelError(
                        f"it was called with more than {MAX_SHAPES} sets of input shapes; compile"
                        " it for few"
                    )
                self._libraries[key] = self._compile(arguments)
            return self._libraries[key]

    @capturing()
    def _compile(self, arguments: "Sequence[Any]") -> "CompiledModel":
        import torch

        from subpc.compiler.compile_model import compile

        # Shapes and types matter, values do not; fresh tensors also carry no mark of inference
        # mode.
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # in which torch tells its own parts what will change
            inputs = tuple(torch.rand(v.shape).to(v.dtype) for v in self._tensors(arguments))
            fixed = {i: v for i, v in enumerate(arguments) if isinstance(v, int)}
            program = _export(_bound(self._graph, self._weights, fixed, len(arguments)), inputs)
            return compile(program, **self._options)


def _bound(
    graph: "fx.GraphModule",
    weights: "Mapping[int, torch.Tensor]",
    fixed: Mapping[int, int],
    count: int,
) -> "nn.Module":
    """The graph as a module that owns its weights, under the names that they have in the user's
    model."""
    import torch

    placeholders = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    names = {index: weight_name(placeholders[index]) for index in weights}
    if len(set(names.values())) < len(names):
        names = {index: placeholders[index] for index in weights}

    class Bound(torch.nn.Module):
        """Puts weights and fixed numbers back among the arguments."""

        def forward(self, *inputs: torch.Tensor) -> Any:
            """Call the graph."""
            waiting = iter(inputs)
            owned = dict(self.named_buffers())
            return graph(
                *(
                    owned[names[i]] if i in names else fixed[i] if i in fixed else next(waiting)
                    for i in range(count)
                )
            )

    module = Bound()
    for index, name in names.items():
        *path, last = name.split(".")
        parent: torch.nn.Module = module
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, torch.nn.Module())
            parent = parent.get_submodule(part)
        parent.register_buffer(last, weights[index].detach().clone())
    return module.eval()


def weight_name(placeholder: str) -> str:
    """`layer1.0.conv1.weight` for
    `l_self_modules_layer1_modules_0_modules_conv1_parameters_weight_`."""
    return _PARTS.sub(".", placeholder.removeprefix(_PREFIX).strip("_")).strip(".")


def _export(module: "nn.Module", inputs: "tuple[torch.Tensor, ...]") -> "ExportedProgram":
    """Export, and refuse what a library would get wrong: writing to its inputs or weights, and
    random numbers."""
    from subpc.frontend.from_torch.export import capture

    program = capture(module, inputs)
    changed = [node for node in program.graph.nodes if node.op == "call_function" and _trains(node)]
    if changed:
        raise UnsupportedModelError(
            "it is in training mode (dropout or batch norm); call model.eval() first"
        )
    signature = program.run_decompositions({}).graph_signature
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if written:
        raise UnsupportedModelError(f"it writes to {', '.join(map(str, written[:3]))} in place")
    return program


def _trains(node: "fx.Node") -> bool:
    name = str(node.target)
    if name.startswith("aten.dropout"):
        return bool(node.args[2])
    return name == "aten.batch_norm.default" and bool(node.args[5])


def _warn(reason: str) -> None:
    warnings.warn(
        f"subpc leaves this graph to PyTorch: {reason}", GraphFallbackWarning, stacklevel=3
    )
