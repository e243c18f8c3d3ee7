#!/usr/bin/env bash
# Instructions of ours in a step of twelve slots, and in a fetch of results and their reading, counted by
# callgrind with a launch that does nothing: all that a loop takes, less what the same loop takes without
# the library. Data writes are not in it: the caller writes nothing. Fails above a goal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=10000 over=0
cargo build --release --quiet --example staging_cost --example result_cost
programs=${CARGO_TARGET_DIR:-target}/release/examples
binary=$programs/staging_cost

collected() { # FUNCTION COMMAND...
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect="$1" "${@:2}" "$steps" 2>&1 |
        sed -n 's/.*Collected : //p'
}

count() { # NAME ALL LOOP GOAL
    [ "${3:-0}" -gt "$steps" ] || { echo "callgrind did not find the loop"; exit 1; }
    local ours=$((($2 - $3) / steps))
    echo "$1: $ours instructions of ours a step ($(($2 / steps)) less $(($3 / steps)) of the loop; goal $4)"
    [ "$ours" -gt 0 ] && [ "$ours" -le "$4" ] || over=1
}

loop=$(collected staging_cost::noop::only_the_loop "$binary" noop Loop)
for layout in PerSlot Packed; do
    count "$layout" "$(collected staging_cost::noop::counted_steps "$binary" noop "$layout")" "$loop" 400
done
loop=$(collected result_cost::only_the_loop "$programs/result_cost" Loop)
count Results "$(collected result_cost::counted_results "$programs/result_cost" Results)" "$loop" 300
[ "${1:-}" = --count ] && exit "$over"
"$binary" ratio
"$binary" write
exit "$over"
