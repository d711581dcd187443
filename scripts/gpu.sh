#!/usr/bin/env bash
# Run make gpu where nothing can be fetched: install from wheels/ alone, into a folder of its own.
#
#     make gpu-wheels                      # where packages can be fetched; then take the tree along
#     scripts/gpu.sh [--out DIR] ...       # on the GPU machine; options are those of make gpu
#
# PYTHON, WHEELS and SITE name the interpreter, the wheels and the folder, if not the usual ones.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=${WHEELS:-wheels}
site=${SITE:-build/gpu-site}

shopt -s nullglob
files=("$wheels"/*.whl)
if [ ${#files[@]} = 0 ]; then
  echo "There are no wheels in $wheels: run 'make gpu-wheels' where packages can be fetched." >&2
  exit 2
fi
rm -rf "$site"
mkdir -p "$site"
site=$(cd "$site" && pwd)
install=("$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir
  --disable-pip-version-check --target "$site")
"${install[@]}" "${files[@]}"
export PYTHONPATH="$site:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
# The tree itself too: its plugins are found by what an installation writes down.
"${install[@]}" --upgrade --no-build-isolation .
exec "$python" -m gpu "$@"
