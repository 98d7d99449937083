#!/usr/bin/env bash
# Check types in the layout that is installed: from the repository's folders, mypy does not see `subpc.frontend` and the others.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$root/subpc" "$copy/subpc"
for folder in frontend passes schedules algorithms cli; do
    cp -r "$root/$folder" "$copy/subpc/$folder"
done
cd "$copy"
"$root/.venv/bin/mypy" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p subpc
