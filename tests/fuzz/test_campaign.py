"""The campaign comes back with figures whatever its workers do, and refuses kinds that it does not
know."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import campaign
from tests.fuzz.worker import finding_name


def _followed(
    script: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[campaign.Result, int]:
    """What is noted of a worker that runs `script`, and the next case's number."""
    monkeypatch.setattr(campaign, "CASE_SECONDS", 0.5)
    monkeypatch.setattr(campaign, "END_SECONDS", 0.5)
    worker = subprocess.Popen(
        [sys.executable, "-c", f"import os, time\n{script}"], stdout=subprocess.PIPE, bufsize=0
    )
    result = campaign.Result()
    number, _ = campaign.follow(worker, folder, 0, 60, result)
    assert worker.poll() is not None, "it was left behind"
    return result, number


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("print('ready', flush=True); time.sleep(60)", "hung"),
        ("print('ready', flush=True); os.abort()", "crashed"),
        ("print('ready', flush=True); os.close(1); time.sleep(60)", "hung"),
    ],
)
def test_a_worker_that_does_not_answer_is_ended_and_counted(
    script: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, number = _followed(script, tmp_path, monkeypatch)
    assert result.counts == {outcome: 1}
    assert number == 1


def test_answers_that_come_at_once_are_all_counted_before_a_case_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "ready\\n0 refused\\n1 accepted\\n2 refused\\n"
    result, number = _followed(f"os.write(1, b'{lines}'); time.sleep(60)", tmp_path, monkeypatch)
    assert result.counts == {"refused": 2, "accepted": 1, "hung": 1}
    assert number == 4
    assert [finding.outcome for finding in result.findings] == ["hung (case 3)"]


def test_what_is_kept_is_the_case_that_was_found_and_not_the_one_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / finding_name(0, ".onnx")).write_text("leaked")
    (work / "case.onnx").write_text("later")
    lines = "ready\\n0 leaked KeyError\\n1 refused\\n"
    result, _ = _followed(f"os.write(1, b'{lines}'); os.abort()", work, monkeypatch)
    kept = [finding.path.read_text() for finding in result.findings if finding.path is not None]
    assert kept == ["leaked", "later"]


def test_an_unknown_kind_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--only", "torchscripts"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "--only torchscripts is no kind of file; known: pt2, torchscript" in (
        capsys.readouterr().err
    )
