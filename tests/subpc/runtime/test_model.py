"""Loading and running: values, shapes, types, threads."""

import concurrent.futures
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import subpc
from subpc.errors import ConfigError
from subpc.machine.threads import available_threads
from subpc.runtime.model import load

Expected = Callable[[np.ndarray], np.ndarray]


def image(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2])
def test_numpy_in_numpy_out_picks_the_function_by_shape(
    toy: Path, toy_expected: Expected, batch: int
) -> None:
    x = image(batch)
    y = subpc.load(toy)(x)
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y, toy_expected(x))


def test_torch_in_torch_out(toy: Path, toy_expected: Expected) -> None:
    x = image()
    y = load(toy)(torch.from_numpy(x).requires_grad_())
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(y.numpy(), toy_expected(x))


def test_run_by_name(toy: Path, toy_expected: Expected) -> None:
    outputs = load(toy).run({"image": image()})
    assert list(outputs) == ["scores"]
    np.testing.assert_array_equal(outputs["scores"], toy_expected(image()))
    with pytest.raises(ConfigError, match="pixels"):
        load(toy).run({"pixels": image()})


def test_outputs_are_not_overwritten_by_the_next_call(toy: Path, toy_expected: Expected) -> None:
    model = load(toy)
    first = model(image(seed=1))
    model(image(seed=2))
    np.testing.assert_array_equal(first, toy_expected(image(seed=1)))


@pytest.mark.parametrize("view", ["transposed", "sliced", "unaligned", "reversed"])
def test_any_memory_layout_is_taken(toy: Path, toy_expected: Expected, view: str) -> None:
    big = np.random.default_rng(3).standard_normal((1, 3, 16, 32)).astype(np.float32)
    raw = np.zeros(4 * 768 + 4, np.uint8)[4:].view(np.float32).reshape(1, 3, 16, 16)
    raw[:] = image()
    x = {
        "transposed": image().transpose(0, 1, 3, 2),
        "sliced": big[..., ::2],
        "unaligned": raw,
        "reversed": image()[:, ::-1],
    }[view]
    np.testing.assert_array_equal(load(toy)(x), toy_expected(x))


def test_wrong_shape_lists_the_accepted_ones(toy: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"\(1, 3, 15, 16\).*\(1, 3, 16, 16\) or \(2, 3, 16, 16\)"
    ):
        load(toy)(np.zeros((1, 3, 15, 16), np.float32))
    with pytest.raises(ConfigError, match="3, 16, 16"):
        load(toy)(np.zeros((3, 16, 16), np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, ">f4"])
def test_wrong_type_says_how_to_convert(toy: Path, dtype: str) -> None:
    with pytest.raises(ConfigError, match=r"astype\('float32'\)"):
        load(toy)(np.zeros((1, 3, 16, 16), dtype))


@pytest.mark.parametrize("value", [[[1.0]], None, "image.png"])
def test_not_an_array(toy: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="numpy array or a PyTorch tensor"):
        load(toy)(value)  # type: ignore[arg-type]


def test_bfloat16_tensor(toy: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.float\(\)"):
        load(toy)(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16))


def test_wrong_number_of_inputs(toy: Path) -> None:
    with pytest.raises(ConfigError, match="2 inputs were given, the model takes 1: image"):
        load(toy)(image(), image())


@pytest.mark.parametrize("threads", [0, -1, 10_000, True])
def test_threads_out_of_range(toy: Path, threads: int) -> None:
    with pytest.raises(ConfigError, match=f"1 to {available_threads()}"):
        load(toy, threads=threads)


def test_every_thread_count_gives_the_same_bits(toy: Path) -> None:
    results = [load(toy, threads=n)(image()) for n in range(1, available_threads() + 1)]
    assert all(np.array_equal(results[0], r) for r in results)


def test_eight_threads_share_one_model(toy: Path, toy_expected: Expected) -> None:
    model = load(toy)

    def work(seed: int) -> bool:
        x = image(1 + seed % 2, seed)
        return all(np.array_equal(model(x), toy_expected(x)) for _ in range(20))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(32)))


def test_four_processes_share_one_file(toy: Path, toy_expected: Expected) -> None:
    code = (
        "import sys, numpy as np, subpc\n"
        "x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)\n"
        "model = subpc.load(sys.argv[1])\n"
        "for _ in range(50): y = model(x)\n"
        "sys.stdout.buffer.write(y.tobytes())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(toy)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    answers = [process.communicate()[0] for process in processes]
    assert answers == [toy_expected(image()).tobytes()] * 4


def test_save_copies_the_library_even_when_the_original_is_gone(
    make_toy: Callable[[Path], Path], tmp_path: Path
) -> None:
    original = make_toy(tmp_path / "a.so")
    content = original.read_bytes()
    model = load(original)
    original.unlink()
    copy = model.save(tmp_path / "b.so")
    assert copy.read_bytes() == content
    np.testing.assert_array_equal(load(copy)(image()), model(image()))


def test_a_name_without_the_usual_ending_loads(
    make_toy: Callable[[Path], Path], tmp_path: Path, toy_expected: Expected
) -> None:
    np.testing.assert_array_equal(
        load(make_toy(tmp_path / "network"))(image()), toy_expected(image())
    )


def test_benchmark_counts_what_was_asked(toy: Path) -> None:
    timing = load(toy).benchmark(runs=7, warmup=2)
    assert timing.runs == 7
    assert 0 < timing.best <= timing.p50 <= timing.p90 <= timing.p99
    with pytest.raises(ConfigError, match="runs is 0"):
        load(toy).benchmark(runs=0)


def test_profile_groups_by_layer(toy: Path) -> None:
    profile = load(toy).profile(runs=3, warmup=1)
    assert [row.layer for row in profile.layers] == ["layer1.conv1", "relu"]
    assert sum(row.share for row in profile.layers) == pytest.approx(1)
    assert sum(row.ms for row in profile.layers) == pytest.approx(profile.steps_ms)


def test_repr_says_what_it_is(toy: Path) -> None:
    assert (
        repr(load(toy, threads=1))
        == "<CompiledModel toy: 25% sparse, N=16, float32, untuned, llvm, 1 threads>"
    )
