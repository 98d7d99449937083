"""Runs an imported model with TVM's own lowering: slow, but independent of our passes, to check
what an importer produced."""

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.imported_model import ImportedModel


def run_reference(model: ImportedModel, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of `model`, one array each.

    inputs: arrays of `model.input_shapes` and `model.input_dtypes`, in order.
    """
    return build_reference(model)(inputs)


def build_reference(model: ImportedModel) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """`model` compiled: from its inputs to its outputs, as often as wanted.

    Both take arrays of `model.input_shapes` and give those of its outputs, in order.
    """
    executable = relax.build(model.module, tvm.target.Target({"kind": "llvm", "opt-level": 1}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    params = [tvm.runtime.tensor(np.ascontiguousarray(value)) for value in model.params.values()]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        result = machine["main"](
            *(tvm.runtime.tensor(np.ascontiguousarray(x)) for x in inputs), *params
        )
        return [t.numpy() for t in (result if len(model.output_names) > 1 else [result])]

    return run
