#!/usr/bin/env bash
# Instructions of a step of twelve slots, counted by callgrind with a launch that does nothing. The
# difference of two runs of different length leaves out everything but the steps. Data writes are
# not in it: the caller writes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

short=1000 long=11000 goal=600
cargo build --release --quiet --example staging_cost
binary=${CARGO_TARGET_DIR:-target}/release/examples/staging_cost

collected() { # STEPS
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" noop "$1" 2>&1 |
        sed -n 's/.*Collected : //p'
}

for layout in PerSlot Packed; do
    if [ "$layout" = Packed ]; then export PACKED=1; else unset PACKED; fi
    more=$(($(collected "$long") - $(collected "$short")))
    each=$(bc <<<"scale=1; $more / ($long - $short)")
    echo "$layout: $each instructions a step (goal $goal)"
done
"$binary" ratio
"$binary" write
