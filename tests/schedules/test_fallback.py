"""Operators without a kernel of ours: legalised by Relax, run behind the kernel ABI, compared with
PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional
from tvm import relax

from subpc.schedules.fallback import Fallback
from subpc.schedules.isa import AVX512, VectorIsa
from tests.schedules.harness import ISAS, assembly, cpu_supports, run_everywhere

op = relax.op
Case = tuple[
    str, list[tuple[tuple[int, ...], str]], Callable[..., Any], Callable[..., torch.Tensor]
]


def legalised(
    shapes: list[tuple[tuple[int, ...], str]], build: Callable[..., Any], fuse: bool = True
) -> list[tvm.tirx.PrimFunc]:
    """The PrimFuncs that Relax makes of one expression."""
    variables = [
        relax.Var(f"x{i}", relax.TensorType(shape, dtype))
        for i, (shape, dtype) in enumerate(shapes)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", variables):
        with builder.dataflow():
            result = builder.emit_output(build(*variables))
        builder.emit_func_output(result)
    passes = [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()]
    passes += [relax.transform.FuseOps(), relax.transform.FuseTIR()] if fuse else []
    module = tvm.transform.Sequential(passes)(builder.get())
    return [f for f in module.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]


F32 = "float32"
CASES: list[Case] = [
    ("softmax", [((2, 8, 7, 9), F32)], lambda x: op.nn.softmax(x, axis=1), lambda x: x.softmax(1)),
    (
        "softmax_last",
        [((3, 5, 64), F32)],
        lambda x: op.nn.softmax(x, axis=-1),
        lambda x: x.softmax(-1),
    ),
    (
        "layer_norm",
        [((2, 49, 96), F32), ((96,), F32), ((96,), F32)],
        lambda x, g, b: op.nn.layer_norm(x, g, b, axes=[-1]),
        lambda x, g, b: functional.layer_norm(x, (96,), g, b),
    ),
    (
        "transpose",
        [((2, 17, 7, 16), F32)],
        lambda x: op.permute_dims(x, [0, 2, 3, 1]),
        lambda x: x.permute(0, 2, 3, 1),
    ),
    (
        "resize",
        [((1, 3, 7, 9), F32)],
        lambda x: op.image.resize2d(
            x, (14, 18), layout="NCHW", method="linear", coordinate_transformation_mode="half_pixel"
        ),
        lambda x: functional.interpolate(x, (14, 18), mode="bilinear"),
    ),
    (
        "slice",
        [((2, 9, 12), F32)],
        lambda x: op.strided_slice(x, [1, 2], [1, 0], [8, 12], [2, 3]),
        lambda x: x[:, 1:8:2, ::3],
    ),
    ("matmul", [((3, 13, 33), F32), ((3, 33, 48), F32)], op.matmul, torch.matmul),
    ("matmul_odd", [((13, 33), F32), ((33, 19), F32)], op.matmul, torch.matmul),
    (
        "conv_transpose",
        [((1, 4, 7, 8), F32), ((4, 3, 2, 2), F32)],
        lambda x, w: op.nn.conv2d_transpose(x, w, strides=(2, 2)),
        lambda x, w: functional.conv_transpose2d(x, w, stride=2),
    ),
    (
        "conv_transpose_padded",
        [((2, 4, 7, 8), F32), ((4, 3, 4, 4), F32)],
        lambda x, w: op.nn.conv2d_transpose(x, w, strides=(2, 2), padding=(1, 1)),
        lambda x, w: functional.conv_transpose2d(x, w, stride=2, padding=1),
    ),
    (
        "concat",
        [((2, 3, 5), F32), ((2, 4, 5), F32)],
        lambda a, b: op.concat([a, b], axis=1),
        lambda a, b: torch.cat([a, b], 1),
    ),
    (
        "mean",
        [((2, 40, 7, 7), F32)],
        lambda x: op.mean(x, axis=[2, 3], keepdims=True),
        lambda x: x.mean((2, 3), keepdim=True),
    ),
    (
        "add_relu",
        [((2, 8, 16), F32), ((2, 8, 16), F32)],
        lambda a, b: op.nn.relu(op.add(a, b)),
        lambda a, b: functional.relu(a + b),
    ),
    ("broadcast", [((2, 8, 5), F32), ((8, 1), F32)], op.multiply, torch.mul),
    ("gelu", [((3, 1000), F32)], op.nn.gelu, functional.gelu),
    (
        "tanh_pow",
        [((3, 40), F32)],
        lambda x: op.power(op.tanh(x), relax.const(2.0)),
        lambda x: torch.tanh(x) ** 2,
    ),
    ("reshape", [((2, 6, 8), F32)], lambda x: op.reshape(x, (4, 24)), lambda x: x.reshape(4, 24)),
    (
        "pad",
        [((1, 2, 5, 6), F32)],
        lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 2, 3, 4], "reflect"),
        lambda x: functional.pad(x, (3, 4, 1, 2), "reflect"),
    ),
    ("argmax", [((5, 33), F32)], lambda x: op.argmax(x, axis=1), lambda x: x.argmax(1)),
    ("compare", [((5, 33), F32), ((5, 33), F32)], op.greater, torch.gt),
    (
        "take",
        [((9, 20), F32), ((4,), "int64")],
        lambda x, i: op.take(x, i, axis=0),
        lambda x, i: x[i],
    ),
    (
        "group_norm",
        [((2, 8, 5, 5), F32), ((8,), F32), ((8,), F32)],
        lambda x, g, b: op.nn.group_norm(x, g, b, num_groups=4, channel_axis=1, axes=[2, 3]),
        lambda x, g, b: functional.group_norm(x, 4, g, b),
    ),
    (
        "conv3d_like",
        [((1, 3, 6, 7, 8), F32), ((4, 3, 3, 3, 3), F32)],
        lambda x, w: op.nn.conv3d(x, w, padding=1),
        lambda x, w: functional.conv3d(x, w, padding=1),
    ),
]


def sample(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(len(shape))
    values: np.ndarray = (
        rng.standard_normal(shape).astype("float32") if dtype == F32 else rng.integers(0, 4, shape)
    )
    return values


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_operator(case: Case, isa: VectorIsa) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    name, shapes, build, reference = case
    (func,) = legalised(shapes, build)
    inputs = [sample(*s) for s in shapes]
    expected = reference(*map(torch.tensor, inputs)).contiguous().numpy()
    kernel = Fallback.of(func, name)
    got = run_everywhere(kernel, [*inputs, np.zeros(expected.shape, expected.dtype)], isa)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_equal_programs_are_one_kernel() -> None:
    a, b = (legalised(CASES[0][1], CASES[0][2])[0] for _ in range(2))
    assert Fallback.of(a) == Fallback.of(b)
    assert len({Fallback.of(a), Fallback.of(b)}) == 1
    assert Fallback.of(a) != Fallback.of(legalised(CASES[1][1], CASES[1][2])[0])


def test_work_is_counted() -> None:
    (func,) = legalised([((4, 8), F32), ((8, 16), F32)], op.matmul)
    assert Fallback.of(func).flops == 4 * 8 * 16


def test_dynamic_shapes_are_refused() -> None:
    n = tvm.tirx.Var("n", "int64")
    (func,) = legalised([((n, 8), F32)], op.nn.relu)
    with pytest.raises(ValueError, match=r"not static|no buffer"):
        Fallback.of(func)


def test_matrix_product_becomes_vectors() -> None:
    (func,) = legalised([((64, 128), F32), ((128, 256), F32)], op.matmul)
    text = assembly(Fallback.of(func), AVX512)
    assert text.count("zmm") > 8
    assert "Workspace" not in text
