"""Convolutions of codes, and what they are in whole numbers and the same float32 steps in NumPy,
bit for bit."""

from dataclasses import dataclass, replace

import numpy as np

from subpc.schedules.activation import Activation
from subpc.schedules.dot import QUAD
from subpc.schedules.isa import AVX512_VNNI, VectorIsa
from subpc.schedules.layout import TensorLayout, halo_frame
from subpc.schedules.quad_conv import QuadConv
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.quantization import Quantization
from subpc.schedules.requantize import INVERSE, RESIDUAL, Requantize, levels_of
from tests.schedules.harness import run_everywhere

TILE = QuadTile(rows=6, vectors=4, band=2, blocks=2)
RELU = Activation(kind="relu")
HALF = Quantization(scale=0.5, zero_point=0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A convolution of codes: channels in and out, the plane, filters of kernel x kernel taps with
    dilation, in groups of n that keep `kept` channels each (0: all, listed nowhere). weights: the
    largest code; corner: all weights of a filter are that or minus that, and all pixels 255."""

    c_in: int = 8
    c_out: int = 16
    size: tuple[int, int] = (9, 11)
    kernel: int = 3
    dilation: int = 1
    n: int = 16
    kept: tuple[int, ...] = ()
    batch: int = 1
    activation: Activation = RELU
    residual: str = ""
    in_place: bool = False
    codes: bool = True
    zero_point: int = 0
    result: Quantization = HALF
    weights: int = 127
    corner: bool = False
    narrow: int | None = None
    tile: QuadTile = TILE


def layout(case: Case, channels: int, dtype: str) -> TensorLayout:
    halo = case.kernel // 2 * case.dilation
    return TensorLayout(
        batch=case.batch,
        channels=channels,
        frame=halo_frame(*case.size, halo, dtype),
        dtype=dtype,
    )


def framed(values: np.ndarray, where: TensorLayout, fill: float = 0) -> np.ndarray:
    """Values (batch, channels, height, width) in a layout whose other places hold `fill`."""
    frame = where.frame
    planes = np.full((where.batch * where.channels, frame.plane), fill, where.dtype)
    for row in range(frame.height):
        start = frame.first + row * frame.pitch
        planes[:, start : start + frame.width] = values[:, :, row].reshape(len(planes), -1)
    return planes.ravel()


def pixels(flat: np.ndarray, where: TensorLayout) -> np.ndarray:
    frame = where.frame
    planes = flat.reshape(where.batch, where.channels, frame.plane)
    rows = [
        planes[:, :, frame.first + r * frame.pitch :][:, :, : frame.width]
        for r in range(frame.height)
    ]
    return np.stack(rows, axis=2)


def sums_of(case: Case, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The integer convolution of x - zero point, whose padding is the zero point."""
    reach = case.kernel // 2 * case.dilation
    edge = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    padded = np.pad(x.astype("int64") - case.zero_point, edge)
    height, width = case.size
    total = np.zeros((case.batch, case.c_out, height, width), "int64")
    for ky in range(case.kernel):
        for kx in range(case.kernel):
            y0, x0 = ky * case.dilation, kx * case.dilation
            part = padded[:, :, y0 : y0 + height, x0 : x0 + width]
            total += np.einsum("oi,bihw->bohw", codes[:, :, ky, kx].astype("int64"), part)
    return total


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a * b + c, rounded once: exact in float64 but for the last sum's own rounding."""
    return (a.astype("float64") * b.astype("float64") + c.astype("float64")).astype("float32")


def source_of(case: Case) -> TensorLayout:
    return layout(case, case.c_in, "uint8")


def out_of(case: Case) -> TensorLayout:
    return layout(case, case.c_out, "uint8" if case.codes else "float32")


def residual_of(case: Case) -> TensorLayout:
    return layout(case, case.c_out, case.residual)


def kernel_of(case: Case, *, limited: bool = False) -> QuadConv:
    counts = case.kept or (case.c_in,) * -(-case.c_out // case.n)
    uniform, quads = len(set(counts)) == 1, [-(-count // QUAD) for count in counts]
    pitch, reach = source_of(case).frame.pitch, case.kernel // 2
    return QuadConv(
        source=source_of(case),
        out=out_of(case),
        group=case.n,
        kept=counts[0] if uniform else sum(counts),
        sparse=bool(case.kept),
        uniform=uniform,
        phases=1,
        taps=tuple(
            (y - reach) * case.dilation * pitch + (z - reach) * case.dilation
            for y in range(case.kernel)
            for z in range(case.kernel)
        ),
        quads=quads[0] if uniform else sum(quads),
        residual=residual_of(case) if case.residual else None,
        epilogue=Requantize(
            residual=bool(case.residual),
            in_place=case.in_place,
            activation=case.activation,
            codes=case.codes,
            residual_codes=case.residual == "uint8",
            limited=limited,
            shifted=case.codes and case.result.zero_point != 0,
        ),
        tile=case.tile,
        narrow=case.narrow,
    )


def check(case: Case, isa: VectorIsa = AVX512_VNNI) -> None:
    random = np.random.default_rng(7)
    groups = -(-case.c_out // case.n)
    kept = [
        np.sort(random.permutation(case.c_in)[:count])
        for count in (case.kept or (case.c_in,) * groups)
    ]
    codes = np.zeros((groups * case.n, case.c_in, case.kernel, case.kernel), "int8")
    for group, channels in enumerate(kept):
        size = (case.n, len(channels), case.kernel, case.kernel)
        rows = slice(group * case.n, (group + 1) * case.n)
        codes[rows, channels] = random.integers(-case.weights, case.weights + 1, size)
        if case.corner:
            signs = np.where(np.arange(case.n) % 3, 1, -1).reshape(-1, 1, 1, 1)
            codes[rows, channels] = case.weights * signs
    codes[case.c_out :] = 0
    source, out = source_of(case), out_of(case)
    x = random.integers(255 if case.corner else 0, 256, source.shape).astype("uint8")
    multiplier = random.uniform(1e-4, 3e-3, case.c_out)
    bias = random.uniform(-20, 20, case.c_out)
    residual_scale = Quantization(scale=0.25, zero_point=9) if case.residual == "uint8" else None
    levels = levels_of(
        multiplier=multiplier,
        bias=bias,
        largest_sum=255.0 * 127 * case.c_in * case.kernel**2,
        activation=case.activation,
        residual=residual_scale,
        result=case.result if case.codes else None,
    )
    kernel = kernel_of(case, limited=levels.limited)
    epilogue = kernel.epilogue
    values = operands(case, kernel, kept, codes)
    room = groups * case.n - case.c_out
    values["multiplier"], values["bias"] = (
        np.pad(levels.multiplier, (0, room)),
        np.pad(levels.bias, (0, room)),
    )
    values |= {"x": framed(x, source, case.zero_point), "levels": levels.levels}
    residual = np.zeros(out.shape, out.dtype)
    if case.residual:
        residual_at = residual_of(case)
        residual = random.integers(0, 256, residual_at.shape).astype(case.residual)
        values["residual"] = framed(residual, residual_at)
    values["y"] = framed(residual, out) if case.in_place else np.zeros(out.elements, out.dtype)
    mask = framed(np.ones((1, 1, *case.size)), replace(out, batch=1, channels=1))
    values["mask"] = mask * 255 if case.codes else mask

    flat = run_everywhere(kernel, [values[name] for name in kernel.operands], isa)

    sums = sums_of(case, x, codes[: case.c_out])
    shape = (1, case.c_out, 1, 1)
    expected = fma(
        sums.astype("float32"), levels.multiplier.reshape(shape), levels.bias.reshape(shape)
    )
    if case.residual == "uint8":
        expected = fma(residual, levels.levels[RESIDUAL], expected)
    elif case.residual:
        scale = levels.levels[INVERSE] if epilogue.folded else np.float32(1)
        expected = fma(residual, scale, expected)
    if not epilogue.folded and case.activation.kind == "relu":
        expected = np.maximum(expected, 0)
    if not epilogue.folded and case.activation.kind == "leaky_relu":
        expected = np.where(expected < 0, np.float32(case.activation.slope) * expected, expected)
    if case.codes:
        if not epilogue.folded:
            expected = expected * levels.levels[INVERSE]
        low = case.result.zero_point if case.activation.kind == "relu" else 0
        expected = np.clip(np.rint(expected) + case.result.zero_point, low, 255)
    np.testing.assert_array_equal(pixels(flat, out), expected.astype(out.dtype))
    outside = framed(np.ones(out.shape), out) == 0
    written = flat.reshape(-1, out.frame.plane)
    columns = outside.reshape(written.shape)[:, : out.frame.first + out.frame.pixels]
    assert not written[:, : columns.shape[1]][columns].any(), "wrote into the halo"
    assert len(np.unique(flat)) > 3, "a result that hardly depends on anything"


def operands(
    case: Case, kernel: QuadConv, kept: list[np.ndarray], codes: np.ndarray
) -> dict[str, np.ndarray]:
    """w, index, starts, start: written here from their description, not by the compiler's code."""
    words, index, starts = [], [], [0]
    for group, channels in enumerate(kept):
        listed = np.concatenate([channels, np.zeros(-len(channels) % QUAD, int)])
        if kernel.sparse or not group:
            index += [int(c) * kernel.source.frame.plane for c in listed]
        starts.append(starts[-1] + len(listed) // QUAD)
        together = case.n if case.tile.filter_lanes else case.tile.rows
        for row in range(0, case.n, together):
            for quad in range(0, len(listed), QUAD):
                for tap in range(case.kernel**2):
                    for o in range(row, min(row + together, case.n)):
                        filter_ = codes[group * case.n + o].reshape(case.c_in, -1)
                        words.append(
                            [
                                filter_[listed[quad + i], tap] if quad + i < len(channels) else 0
                                for i in range(QUAD)
                            ]
                        )
    sums = codes.astype("int64").sum(axis=(1, 2, 3))
    return {
        "w": words_of(np.array(words), kernel.narrow),
        "index": np.array(index, "int32"),
        "starts": np.array(starts, "int32"),
        "start": (-case.zero_point * sums).astype("int32"),
    }


def words_of(codes: np.ndarray, narrow: int | None) -> np.ndarray:
    """Codes (steps, 4) as int32: bytes, or words."""
    if narrow == 0:
        words = -codes[:, [0, 2, 1, 3]].astype("int16")
        return words.ravel().view("int32")
    return codes.astype("int8").ravel().view("int32")
