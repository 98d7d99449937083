"""schedules/quad_conv.py against integer sums and the same float32 steps in NumPy: bit for bit."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from subpc.schedules.activation import NONE, Activation
from subpc.schedules.dot import QUAD
from subpc.schedules.isa import AVX512_VNNI, VectorIsa
from subpc.schedules.layout import TensorLayout, halo_frame
from subpc.schedules.quad_conv import QuadConv
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.quantization import Quantization
from subpc.schedules.requantize import INVERSE, RESIDUAL, ZERO, Requantize, levels_of
from tests.schedules.harness import DOT_ISAS, cpu_supports, run_everywhere

TILE = QuadTile(rows=6, vectors=4, band=2, blocks=2)
RELU = Activation(kind="relu")
HALF = Quantization(scale=0.5, zero_point=0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A convolution of codes: channels in and out, the plane, filters of kernel x kernel taps with
    dilation, in groups of n that keep `kept` channels each (0: all, listed nowhere)."""

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
    codes[case.c_out :] = 0
    uniform = len({len(channels) for channels in kept}) == 1
    quads = [-(-len(channels) // QUAD) for channels in kept]
    out_dtype = "uint8" if case.codes else "float32"
    source, out = layout(case, case.c_in, "uint8"), layout(case, case.c_out, out_dtype)
    residual_at = layout(case, case.c_out, case.residual) if case.residual else None

    x = random.integers(0, 256, source.shape).astype("uint8")
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
    epilogue = Requantize(
        residual=bool(case.residual),
        in_place=case.in_place,
        activation=case.activation,
        codes=case.codes,
        residual_codes=case.residual == "uint8",
        limited=levels.limited,
    )
    frame = source.frame
    kernel = QuadConv(
        source=source,
        out=out,
        group=case.n,
        kept=len(kept[0]) if uniform else sum(map(len, kept)),
        sparse=bool(case.kept),
        uniform=uniform,
        phases=1,
        taps=tuple(
            (y - case.kernel // 2) * case.dilation * frame.pitch
            + (z - case.kernel // 2) * case.dilation
            for y in range(case.kernel)
            for z in range(case.kernel)
        ),
        quads=quads[0] if uniform else sum(quads),
        residual=residual_at,
        epilogue=epilogue,
        tile=case.tile,
        narrow=case.narrow,
    )
    values = operands(case, kernel, kept, codes)
    room = groups * case.n - case.c_out
    values["multiplier"], values["bias"] = (
        np.pad(levels.multiplier, (0, room)),
        np.pad(levels.bias, (0, room)),
    )
    values |= {"x": framed(x, source, case.zero_point), "levels": levels.levels}
    residual = np.zeros(out.shape, out.dtype)
    if case.residual:
        assert residual_at is not None
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
            expected = fma(expected, levels.levels[INVERSE], levels.levels[ZERO])
        low = case.result.zero_point if case.activation.kind == "relu" else 0
        expected = np.clip(np.rint(expected), low, 255)
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


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (5, 3), (7, 7), (13, 17), (4, 70)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_planes_of_any_size(size: tuple[int, int], kernel: int) -> None:
    check(Case(size=size, kernel=kernel, dilation=1, c_in=12))


@pytest.mark.parametrize("c_in", [1, 3, 4, 7, 33])
def test_channels_that_four_does_not_divide(c_in: int) -> None:
    check(Case(c_in=c_in))


@pytest.mark.parametrize("n", [1, 4, 7, 8, 16, 24, 32])
def test_any_number_of_filters_a_group(n: int) -> None:
    check(Case(n=n, c_out=2 * n, kept=(5, 5)))


def test_filters_that_are_not_there() -> None:
    check(Case(n=16, c_out=21))


@pytest.mark.parametrize("kept", [(1, 1, 1), (6, 6, 6), (3, 0, 8), (4, 13, 9)])
def test_groups_keep_what_they_keep(kept: tuple[int, ...]) -> None:
    check(Case(c_in=13, c_out=48, kept=kept, tile=replace(TILE, blocks=2)))


@pytest.mark.parametrize("zero_point", [0, 1, 128, 255])
def test_zero_points(zero_point: int) -> None:
    check(
        Case(zero_point=zero_point, activation=NONE, result=Quantization(scale=0.3, zero_point=131))
    )


@pytest.mark.parametrize("residual", ["uint8", "float32"])
@pytest.mark.parametrize("codes", [True, False])
def test_residuals(residual: str, codes: bool) -> None:
    check(Case(residual=residual, codes=codes))


def test_a_residual_is_overwritten() -> None:
    check(Case(residual="uint8", in_place=True))


@pytest.mark.parametrize("kind", ["none", "relu", "relu6", "leaky_relu"])
def test_activations(kind: str) -> None:
    result = Quantization(scale=0.5, zero_point=100 if kind == "leaky_relu" else 0)
    activation = Activation(kind=kind, slope=0.1 if kind == "leaky_relu" else 0.0)
    if kind == "relu6":
        result = Quantization(scale=6 / 255, zero_point=0)
    check(Case(activation=activation, result=result))


def test_a_relu_before_a_zero_point() -> None:
    check(Case(result=Quantization(scale=0.4, zero_point=40)))


def test_sums_at_the_corners_are_exact() -> None:
    """All products as large as they get: 255 * 127 in every place, four of them and many quads."""
    check(
        Case(
            c_in=64,
            kernel=3,
            weights=127,
            zero_point=255,
            result=Quantization(scale=40, zero_point=99),
            activation=NONE,
        )
    )


@pytest.mark.parametrize(
    "tile",
    [
        QuadTile(rows=1, vectors=1, band=1, blocks=1),
        QuadTile(rows=8, vectors=3, band=3, blocks=1),
        QuadTile(rows=4, vectors=6, band=1, blocks=3, tail=True),
        QuadTile(rows=16, vectors=1, band=7, blocks=2),
        QuadTile(rows=5, vectors=5, band=2, blocks=2, tail=True),
    ],
    ids=str,
)
def test_every_schedule_gives_the_same(tile: QuadTile) -> None:
    check(Case(tile=tile, size=(14, 14), c_out=64, kept=(7, 7, 7, 7), c_in=20))


@pytest.mark.parametrize("size", [(7, 7), (5, 3), (14, 14), (1, 9)])
@pytest.mark.parametrize("kept", [(), (9, 9, 9, 9), (3, 12, 1, 7)], ids=str)
@pytest.mark.parametrize("pixels", ["rows", "a part of one"])
def test_lanes_are_filters(size: tuple[int, int], kept: tuple[int, ...], pixels: str) -> None:
    width = size[1]
    rows = (
        width * max(1, 14 // width)
        if pixels == "rows"
        else width // (2 if width % 2 == 0 else width)
    )
    tile = QuadTile(rows=rows, vectors=1 if kept else 2, band=1, blocks=2, filter_lanes=True)
    check(
        Case(
            tile=tile,
            size=size,
            c_out=64,
            n=16 if kept else 32,
            kept=kept,
            c_in=13,
            residual="uint8",
            zero_point=3,
            batch=2,
        )
    )


def test_batches_and_dilation() -> None:
    check(Case(batch=3, dilation=2, size=(8, 9)))


@pytest.mark.parametrize("name", DOT_ISAS)
def test_instruction_sets(name: str) -> None:
    isa = DOT_ISAS[name]
    if not cpu_supports(isa):
        pytest.skip(f"this CPU has no {name}")
    check(Case(tile=QuadTile(rows=4, vectors=2, band=2, blocks=1)), isa)
