"""A float network becomes the same network with the values of its integer layers rounded to
codes."""

from collections.abc import Mapping
from dataclasses import dataclass
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
from subpc.calibration.observe import matched, observe
from subpc.calibration.pairs import pair_codes
from subpc.calibration.places import Places, Wanted, find_places
from subpc.calibration.ranges import DEFAULT_METHOD, METHODS, TensorStatistics
from subpc.calibration.stand_ins import stand_ins
from subpc.calibration.weights import as_array, bias_correction, int8_codes
from subpc.passes import ops
from subpc.passes.codes import passes_codes
from subpc.passes.dataflow import Dataflow, constant_of, rewrite
from subpc.passes.move_quantize import common_grid
from subpc.schedules.quantization import Quantization

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten

# So many images run through the graph at once.
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How values become codes.

    rows, bias = float_weight(graph, call), constant_of(graph.resolve(call.args[2]))
    if rows is None or bias is None:
        return
    weight = torch.from_numpy(np.array(rows))
    pairs = settings.pairs and call.op.name == ops.CONV2D
    codes, scales = pair_codes(weight) if pairs else int8_codes(weight)
    if settings.correct:
        coded = codes * scales.reshape(-1, *(1,) * (codes.dim() - 1))
        x, *others = (graph.resolve(call.args[i]) for i in (0, 3) if i < len(call.args))
        means = exact[x].channel_mean, rounded[x].channel_mean
        groups = ops.attributes(call).get("groups", 1)
        bias = bias + bias_correction(weight, coded, *means, groups).numpy()
        for residual in others:
            bias = bias + (exact[residual].channel_mean - rounded[residual].channel_mean).numpy()
    set_weight(graph, layer, as_array(codes), as_array(scales), bias.astype("float32"))
