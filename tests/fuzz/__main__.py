"""Fuzzes every loader, and prints a table: python -m tests.fuzz --seconds 3600 [--seed 1] [--only
pt2] [--keep FOLDER]"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import OUTCOMES, run
from tests.fuzz.seeds import LOADERS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--only", help="one kind of file")
    parser.add_argument(
        "--keep", type=Path, help="folder for the files that were neither refused nor accepted"
    )
    options = parser.parse_args()
    if options.only not in (None, *LOADERS):
        parser.error(f"--only {options.only} is no kind of file; known: {', '.join(LOADERS)}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        results = run(Path(folder), options.seconds, options.seed, options.only)
        print(f"| file | cases | {' | '.join(OUTCOMES)} |\n|---|---|{'---|' * len(OUTCOMES)}")
        for kind, result in results.items():
            counts = [result.counts[outcome] for outcome in OUTCOMES]
            print(f"| {kind} | {sum(counts)} | {' | '.join(map(str, counts))} |")
        totals = [
            sum(result.counts[outcome] for result in results.values()) for outcome in OUTCOMES
        ]
        print(f"| all | {sum(totals)} | {' | '.join(map(str, totals))} |")
        findings = [
            (kind, finding) for kind, result in results.items() for finding in result.findings
        ]
        for kind, finding in findings:
            print(f"{kind}: {finding.outcome}", file=sys.stderr)
            if options.keep and finding.path is not None:
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(finding.path, options.keep)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
