#!/bin/sh
# What docs/scale.md and docs/performance.md compute, measured on one GPU: benchmarks/gpu.sh OUT.json
# Takes up to eight minutes and no network. PYTHON: an environment with this package (default: .venv's).
set -eu
out=${1:?usage: benchmarks/gpu.sh OUT.json}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
timeout 400 "$python" -m benchmarks.gpu --json "$folder/measured.json"
timeout 80 "$python" -m benchmarks.kernels --json "$folder/kernels.json" || echo 'kernels: not compiled in time' >&2
"$python" - "$folder" "$out" <<'PYTHON'
import json, pathlib, sys
folder, out = map(pathlib.Path, sys.argv[1:])
parts = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
out.write_text(json.dumps(parts, indent=2) + "\n")
PYTHON
echo "wrote $out"
