"""Runs an imported model with TVM's own lowering: slow, but independent of our passes, to check what an importer produced."""

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.imported import ImportedModel


def run_reference(model: ImportedModel, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of `model`, one array each."""
    executable = relax.build(model.module, tvm.target.Target({"kind": "llvm", "opt-level": 1}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    values = [tvm.runtime.tensor(np.ascontiguousarray(x)) for x in (*inputs, *model.params.values())]
    result = machine["main"](*values)
    return [t.numpy() for t in (result if len(model.output_names) > 1 else [result])]
