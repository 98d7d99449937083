"""Comparing engines: each in its own process, in turns, and losses told like wins."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from subpc.bench import bench
from subpc.bench.process import Worker, WorkerError
from subpc.bench.report import BenchReport, EngineResult
from subpc.cli.main import run
from subpc.errors import ConfigError, SubpcError
from subpc.frontend.from_torch.network import exported_network
from subpc.frontend.from_torch.to_graph import network_from_program
from subpc.machine import cpu
from subpc.machine.cpu import idle_cpus
from subpc.machine.timing import Timing, summarize
from tests.subpc.bench.reports import report


class Toy(torch.nn.Module):
    """The same function as the toy library."""

    def __init__(self, offset: float = 0.5) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu((x + self.offset) * -2.0)


def timing(p50: float) -> Timing:
    return Timing(runs=1, p50=p50, p90=p50, p99=p50, mean=p50, best=p50)


def test_engines_agree_and_are_counted(toy: Path) -> None:
    seen: list[str] = []
    result = bench.time_engines(
        toy,
        ["onnxruntime"],
        model=Toy(),
        runs=6,
        warmup=1,
        rounds=2,
        threads=1,
        progress=lambda stage, d, t: seen.append(stage),
    )
    assert [e.engine for e in result.engines] == ["subpc", "onnxruntime"]
    assert all(
        e.timing is not None and e.timing.runs == 6 and e.peak_mb > 10 for e in result.engines
    )
    assert result.agrees(result.engines[1])
    assert result.threads == 1
    assert seen == [
        "loading subpc",
        "loading onnxruntime",
        *["running subpc", "running onnxruntime"] * 2,
    ]
    assert BenchReport.from_dict(result.to_dict()) == result


def test_another_function_is_noticed(toy: Path) -> None:
    result = bench.time_engines(
        toy, ["onnxruntime"], model=Toy(offset=1.0), runs=2, warmup=0, rounds=1
    )
    assert not result.agrees(result.engines[1])


def test_an_engine_that_fails_says_why_and_the_others_go_on(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    result = bench.time_engines(
        toy, ["onnxruntime", "torch"], model=tmp_path / "broken.onnx", runs=2, warmup=0, rounds=1
    )
    assert result.ours.timing is not None
    assert "onnx" in result.engines[1].failure.lower()
    assert "needs the PyTorch model" in result.engines[2].failure
    assert result.best_rival is None
    assert result.verdict == "nothing to compare with"


def test_a_waiting_worker_is_stopped(toy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", image=np.zeros((1, 3, 16, 16), np.float32))
    worker = Worker("subpc", "subpc", toy, threads=1, inputs=tmp_path / "in.npz", folder=tmp_path)
    try:
        assert _state(worker) == "T"
        worker.turn(3, 1)
        assert len(worker.milliseconds) == 3
        assert _state(worker) == "T"
        os.kill(worker._process.pid, 9)
        with pytest.raises(WorkerError, match="the process of subpc ended"):
            worker.turn(1, 0)
    finally:
        worker.close()


def _state(worker: Worker) -> str:
    time.sleep(0.01)
    return Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rivals": ["tensorrt"]}, "accepted, each once: onnxruntime, openvino"),
        ({"rivals": ["torch", "torch"]}, "each once"),
        ({"rivals": ["torch"], "model": None}, "give it with --model"),
        ({"runs": 2, "rounds": 3}, "runs is 2"),
        ({"shapes": [(9, 9)]}, r"takes image 1,3,16,16 or image 2,3,16,16"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_options(toy: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.time_engines(toy, **{"model": Toy(), **options})  # type: ignore[arg-type]


def test_a_library_that_cannot_run(make_toy: object, tmp_path: Path) -> None:
    path = make_toy(tmp_path / "a.so", ("avx999f",))  # type: ignore[operator]
    with pytest.raises(SubpcError, match="avx999f"):
        bench.time_engines(path)


def test_several_libraries_in_one_table(toy: Path) -> None:
    result = bench.time_engines(toy, libraries={"subpc dense": toy}, runs=2, warmup=0, rounds=1)
    assert [(e.engine, e.version) for e in result.engines] == [
        ("subpc", result.ours.version),
        ("subpc dense", result.ours.version),
    ]
    assert result.engines[1].difference == 0
    assert result.best_rival is None


def test_verdicts() -> None:
    ours = EngineResult(engine="subpc", version="1", timing=timing(2.0))
    slow, fast = (
        EngineResult(engine=e, version="1", timing=timing(t)) for e, t in (("a", 5.0), ("b", 1.0))
    )
    assert (
        report(ours, slow).verdict == "subpc is 2.50 times faster than the fastest other engine (a)"
    )
    assert (
        report(ours, slow, fast).verdict
        == "subpc is 2.00 times SLOWER than the fastest other engine (b)"
    )
    assert report(ours, slow, fast).ratio(slow) == 2.5


def test_a_busy_machine_is_mentioned() -> None:
    ours = EngineResult(engine="subpc", version="1", timing=timing(2.0))
    assert report(ours).warning == ""
    assert "only 0.5 CPUs were free for 1 threads" in replace(report(ours), idle_cpus=0.5).warning


def test_idle_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= idle_cpus(0.05) < 1.5 * (os.cpu_count() or 1)
    monkeypatch.setattr(cpu, "STAT", tmp_path / "none")
    assert idle_cpus(0.0) == float("inf")


def test_percentiles() -> None:
    result = summarize([float(n) for n in range(100, 0, -1)])
    assert (result.p50, result.p90, result.p99, result.best, result.mean) == (50.5, 90, 99, 1, 50.5)
    assert summarize([3.0]) == Timing(runs=1, p50=3, p90=3, p99=3, mean=3, best=3)
    assert summarize([1.0, 2.0, 9.0]).p50 == 2


def test_difference_is_relative_to_the_range() -> None:
    a, b = np.array([0.0, 10.0]), np.array([0.0, 11.0])
    assert bench.difference({"x": a}, {"x": b}) == pytest.approx(1 / 11)
    assert bench.difference({"x": a}, {"x": b[:1]}) is None


def test_the_command_reads_the_model_file(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.jit.script(Toy()).save(str(tmp_path / "toy.pt"))
    arguments = [
        "bench",
        str(toy),
        "--compare",
        "onnxruntime,torch",
        "--model",
        str(tmp_path / "toy.pt"),
    ]
    code = run([*arguments, "--runs", "2", "--rounds", "1", "--json"])
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert [(e["engine"], e["failure"]) for e in engines] == [
        ("subpc", ""),
        ("onnxruntime", ""),
        ("torch", ""),
    ]
    assert all(e["difference"] < 1e-6 for e in engines[1:])
    assert code == 0


def test_the_command_reads_an_exported_program(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.export.save(torch.export.export(Toy(), (torch.rand(1, 3, 16, 16),)), tmp_path / "toy.pt2")
    arguments = [
        "bench",
        str(toy),
        "--compare",
        "onnxruntime,torch",
        "--model",
        str(tmp_path / "toy.pt2"),
    ]
    assert run([*arguments, "--runs", "2", "--rounds", "1", "--json"]) == 0
    assert [e["failure"] for e in json.loads(capsys.readouterr().out)["engines"]] == ["", "", ""]


def test_an_engine_that_is_not_installed_is_named_with_the_command(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "openvino.py").write_text("raise ModuleNotFoundError('No module', name='openvino')")
    (tmp_path / "toy.onnx").write_bytes(b"")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert (
        run(
            [
                "bench",
                str(toy),
                "--compare",
                "openvino",
                "--model",
                str(tmp_path / "toy.onnx"),
                "--runs",
                "2",
                "--rounds",
                "1",
            ]
        )
        == 1
    )
    words = (
        "openvino did not run: this needs the package openvino, which is not installed. Install it"
        " with: pip install openvino\n"
    )
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("form", ["program", "dynamic program", "graph of a compressed file"])
def test_other_engines_run_whatever_kind_of_model_the_file_holds(
    form: str, toy: Path, tmp_path: Path
) -> None:
    sizes = ({0: torch.export.Dim("batch", min=1, max=8)},) if form == "dynamic program" else None
    batch = 2 if sizes else 1
    shape = tuple(bench.read_metadata(toy).functions[0].inputs[0].shape)
    program = torch.export.export(Toy(), (torch.rand(batch, *shape[1:]),), dynamic_shapes=sizes)
    model = network_from_program(exported_network(program)) if "graph" in form else program
    report = bench.time_engines(toy, ["onnxruntime"], model=model, runs=2, rounds=1, warmup=0)
    assert [engine.failure for engine in report.engines] == ["", ""]
    assert report.agrees(report.engines[1])


def test_a_model_that_cannot_be_written_as_onnx_is_no_defect(toy: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).real

    report = bench.time_engines(toy, ["onnxruntime"], model=Odd(), runs=2, rounds=1, warmup=0)
    assert "cannot be written as ONNX" in report.engines[1].failure


def test_the_command_names_a_missing_model_file(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(toy), "--compare", "torch", "--model", str(tmp_path / "none.pt")]) == 1
    assert "none.pt does not exist" in capsys.readouterr().err
