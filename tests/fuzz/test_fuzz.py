"""Mutated files of every kind are refused in words or accepted: nothing runs, nothing else is
raised, nothing crashes or hangs.

SUBPC_FUZZ_SECONDS=3600 makes it an hour; `python -m tests.fuzz` prints the counts.
"""

import os
from pathlib import Path

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.seeds import LOADERS


@pytest.mark.slow
def test_mutated_files_are_refused_or_accepted(tmp_path: Path) -> None:
    results = run(tmp_path, float(os.environ.get("SUBPC_FUZZ_SECONDS", "60")), "0")
    assert results.keys() == LOADERS.keys()
    assert [
        f"{kind}: {finding.outcome}"
        for kind, result in results.items()
        for finding in result.findings
    ] == []
    for kind, result in results.items():
        assert result.counts["refused"] > 0, kind
