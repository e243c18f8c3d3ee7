#!/usr/bin/env bash
# Instructions of `Pool::alloc` where the stream has no block of the size and one comes from the slabs,
# and of the round trip with the drop and the way back to the slabs, counted by callgrind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=10000
cargo build --release --quiet --example pool_slow_path
binary=${CARGO_TARGET_DIR:-target}/release/examples/pool_slow_path

collected() { # FUNCTION SIZE ROUNDS
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect="$1" \
        "$binary" "$2" "$3" 2>&1 | sed -n 's/.*Collected : //p'
}

for size in 4096 $((4 << 20)) $((48 << 20)); do
    # Less a run without counted rounds: the warm-up, in which the pool grows.
    slow=$(($(collected '*Core*alloc_slow*' "$size" "$rounds") - $(collected '*Core*alloc_slow*' "$size" 0)))
    trip=$(collected 'pool_slow_path::counted_round_trips' "$size" "$rounds")
    echo "$size bytes: $((slow / rounds)) instructions from the slabs, $((trip / rounds)) there and back"
done
