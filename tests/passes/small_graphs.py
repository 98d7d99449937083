"""Networks of a few of our operators, written down as such, lowered and run kernel by kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from subpc.machine.worker_pool import start_workers, use_threads
from subpc.passes.dataflow import Dataflow
from subpc.passes.decide_layers import decide_layers
from subpc.passes.lower import Lowering
from subpc.passes.pipeline import LOWERING_RULES
from subpc.passes.plan_memory import plan_memory
from subpc.passes.program import Program, WeightStore
from subpc.schedules.isa import AVX512_VNNI, VectorIsa
from tests.schedules.harness import build

# Bytes between the beginnings of two cache lines.
_LINE = 64
Emit = Callable[[relax.Expr], relax.Var]


def lowered(
    network: Callable[..., relax.Expr],
    inputs: Sequence[np.ndarray],
    isa: VectorIsa = AVX512_VNNI,
) -> tuple[Program, WeightStore]:
    """The program of network(emit, *inputs), where emit(call) gives a call a variable."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType(x.shape, str(x.dtype))) for i, x in enumerate(inputs)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            output = builder.emit_output(network(builder.emit, *params))
        builder.emit_func_output(output)
    module = builder.finalize()
    graph, weights = Dataflow(module["main"]), WeightStore()
    decisions = decide_layers(graph, isa, "auto")
    low = Lowering(module, graph, len(params), isa, weights, decisions)
    return low.run(LOWERING_RULES), weights


def run(
    program: Program,
    weights: WeightStore,
    inputs: Sequence[np.ndarray],
    isa: VectorIsa = AVX512_VNNI,
    calls: int = 1,
) -> list[np.ndarray]:
    """The outputs of a program, its kernels called one after the other; of the last of some calls,
    which meets what the others left in the workspace."""
    start_workers(2)
    use_threads(2)
    plan = plan_memory(program)
    outputs = [np.zeros(shape, dtype) for shape, dtype in program.outputs]
    memory = {
        ("weights", 0): _aligned(weights.blob()),
        ("workspace", 0): _aligned(np.zeros(plan.size, "uint8")),
    }
    memory |= {("input", i): np.ascontiguousarray(x) for i, x in enumerate(inputs)}
    memory |= {("output", i): y for i, y in enumerate(outputs)}
    for step in program.calls * calls:
        places = [plan.resolve(operand) for operand in step.operands]
        addresses = [memory[space, i].ctypes.data + offset for space, i, offset in places]
        assert build(step.kernel, isa)(*addresses) == 0
    return outputs


def families(program: Program) -> list[str]:
    """The kernels that are called, in order."""
    return [step.kernel.family for step in program.calls]


def constant(array: np.ndarray) -> Any:
    """An array in the network."""
    return relax.const(array)


def _aligned(array: np.ndarray) -> np.ndarray:
    room = np.zeros(array.nbytes + _LINE, "uint8")
    start = -room.ctypes.data % _LINE
    room[start : start + array.nbytes] = array.reshape(-1).view("uint8")
    return room[start:]
