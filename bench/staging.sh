#!/usr/bin/env bash
# Instructions of ours in a step of twelve slots, counted by callgrind with a launch that does nothing:
# all that a loop of steps takes, less what the same loop takes without the library. Data writes are not
# in it: the caller writes nothing. Fails above the goal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=10000 goal=600 over=0
cargo build --release --quiet --example staging_cost
binary=${CARGO_TARGET_DIR:-target}/release/examples/staging_cost

collected() { # WHAT FUNCTION
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect="staging_cost::noop::$2" \
        "$binary" noop "$1" "$steps" 2>&1 | sed -n 's/.*Collected : //p'
}

loop=$(collected Loop only_the_loop)
[ "${loop:-0}" -gt "$steps" ] || { echo "callgrind did not find the loop"; exit 1; }
for layout in PerSlot Packed; do
    all=$(collected "$layout" counted_steps)
    ours=$(((all - loop) / steps))
    echo "$layout: $ours instructions of ours a step ($((all / steps)) less $((loop / steps)) of the loop; goal $goal)"
    [ "$ours" -gt 0 ] && [ "$ours" -le "$goal" ] || over=1
done
[ "${1:-}" = --count ] && exit "$over"
"$binary" ratio
"$binary" write
exit "$over"
