"""Make the small database that comes with the package from full ones: of each workload the best
schedule, of each network its verdict.

python benchmarks/ship_tuning.py tune.jsonl ... --output subpc/tuned_schedules/CPU.jsonl
"""

import argparse
from pathlib import Path

from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.database import best_trials
from subpc.tuned_schedules.record import Machine, Verdict


def main() -> None:
    """Read the databases, write the short one anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("databases", nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    read = [tuning_db.read(path) for path in arguments.databases]
    trials, verdicts = [t for d in read for t in d.trials], [v for d in read for v in d.verdicts]
    machines: list[Machine] = list(
        dict.fromkeys([*(t.machine for t in trials), *(v.machine for v in verdicts)])
    )
    arguments.output.unlink(missing_ok=True)
    for machine in machines:
        last: dict[str, Verdict] = {v.network: v for v in verdicts if v.machine == machine}
        for record in (
            *best_trials(t for t in trials if t.machine == machine).values(),
            *last.values(),
        ):
            tuning_db.append(arguments.output, record)
    Path(f"{arguments.output}.lock").unlink(missing_ok=True)
    print(f"wrote {arguments.output}: {len(arguments.output.read_bytes().splitlines())} records")


if __name__ == "__main__":
    main()
