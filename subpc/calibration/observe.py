"""Statistics of a network's tensors on images: those given, or stand-ins that are made to look like
what the network was trained with wherever one of its batch norms says how that looks."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from tvm import relax

from subpc.calibration.interpret import Interpreter
from subpc.calibration.meanings import activated, convolution
from subpc.calibration.ranges import TensorStatistics
from subpc.errors import ConfigError
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, shape_of
from subpc.passes.norm_statistics import Norm

# Deviations below are those of channels that are always the same.
_STILL = 1e-6
Factors = Mapping[relax.Var, Tensor]


def observe(
    interpreter: Interpreter,
    wanted: Iterable[relax.Var],
    batches: Iterable[Sequence[Tensor]],
    factors: Factors | None = None,
) -> dict[relax.Var, TensorStatistics]:
    """Statistics of the tensors wanted, over all batches, each an array for each input; factors
    (C,): what channels are multiplied by before that. ConfigError for values that are not finite.
    """
    found = {var: TensorStatistics() for var in wanted}
    scales = factors or {}

    def add(var: relax.Var, x: Tensor) -> None:
        if var not in found:
            return
        if var in scales:
            x = x * scales[var].to(x.dtype).reshape(-1, *(1,) * (x.dim() - 2))
        try:
            found[var].add(x)
        except ConfigError as error:
            raise ConfigError(
                f"{_name(interpreter, var)} has {error} on the images that ranges are measured on;"
                " int8 needs a network and images without them, or take precision float32"
            ) from error

    for batch in batches:
        for var, x in zip(interpreter.graph.inputs, batch, strict=True):
            add(var, x)
        interpreter.run(*batch, watch=add)
    return found


def in_batches(graph: Dataflow, inputs: Sequence[Tensor], images: int) -> list[tuple[Tensor, ...]]:
    """Inputs (k n, ...) as parts that run through the graph at once: about so many images, where
    all inputs have the same n; others meet each other only within a batch."""
    extents = [shape_of(var)[0] if shape_of(var) else 0 for var in graph.inputs]
    counts = [len(x) // n for x, n in zip(inputs, extents, strict=True) if n]
    together = max(1, images // extents[0]) if len(set(extents)) == 1 and extents[0] else 1
    return [
        tuple(
            x[first * n : (first + together) * n] if n else x
            for x, n in zip(inputs, extents, strict=True)
        )
        for first in range(0, max(counts, default=1), together)
    ]


def _name(interpreter: Interpreter, var: relax.Var) -> str:
    call = interpreter.graph.call(var, *ops.LAYERS)
    return f"layer {ops.layer_of(call)}" if call is not None else f"tensor {var.name}"


def matched(norms: Mapping[str, Norm]) -> dict[str, Callable[..., Tensor]]:
    """A meaning of conv2d that gives every channel, over all images of a batch, the mean and the
    deviation that the batch norm behind it was trained to expect.

    Stand-ins differ from the images that the network knows, and differ more from layer to layer;
    this brings them back, at each layer.
    """

    def conv2d(
        call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        a = ops.attributes(call)
        y = convolution(x, weight, a["strides"], a["padding"], a["dilation"], a["groups"])
        y = _as_expected(y + bias.reshape(1, -1, 1, 1), norms.get(a["name"]))
        return activated(y if residual is None else y + residual, a["activation"])

    return {ops.CONV2D: conv2d}


def _as_expected(y: Tensor, norm: Norm | None) -> Tensor:
    if norm is None:
        return y
    variance, mean = torch.var_mean(y, (0, 2, 3), correction=0, keepdim=True)
    wanted_mean, wanted = (
        torch.from_numpy(value).to(y.dtype).reshape(1, -1, 1, 1)
        for value in (norm.mean, norm.deviation)
    )
    deviation = variance.sqrt()
    factor = torch.where(deviation > _STILL, wanted / deviation, 0.0)
    return (y - mean) * factor + wanted_mean
