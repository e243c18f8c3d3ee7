#!/usr/bin/env bash
# What Python adds to a step of six inputs, on softcuda: overhead/run.sh DRIVER-FOLDER [PYTHON]. Prints; judges nothing,
# since times are the machine's. The package is installed for PYTHON.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LD_LIBRARY_PATH=$1 SOFTCUDA_SCHEDULE=eager
python=${2:-python3}
steps=20000

native=$(cd "$here" && cargo run --quiet --release --example step_loop -- "$steps")
read -r copies views <<<"$("$python" "$here/overhead/steps.py" "$steps")"
for kind in copies views; do
    awk -v kind="$kind" -v ours="${!kind}" -v native="$native" 'BEGIN {
        printf "%-6s %6.2f us a step, %6d a second; without Python %.2f us: %.2f us of Python, ratio %.2f\n",
            kind, ours / 1000, 1e9 / ours, native / 1000, (ours - native) / 1000, ours / native }'
done
