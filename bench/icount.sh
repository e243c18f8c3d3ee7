#!/usr/bin/env bash
# Instructions for a unit of work, counted by callgrind: not timed, so the same on a busy machine.
# The difference of two runs of different length leaves out everything but the loop. The counts
# hold the harness's own instructions; its row shows them.
#
#   bench/icount.sh [WORKLOAD...]      by default W1 W2; any that runs on one thread
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

short=20000 long=220000
workloads=("${@:-W1 W2}")
read -ra workloads <<<"${workloads[*]}"

cargo build --release --quiet --bin icount
binary=${CARGO_TARGET_DIR:-target}/release/icount

collected() { # PEER WORKLOAD COUNT
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$@" 2>&1 |
        sed -n 's/.*Collected : //p'
}

goal() { # WORKLOAD
    case $1 in W1) echo 50 ;; W2) echo 57 ;; esac
}

printf '%-10s' ''
printf '%10s' "${workloads[@]}"
printf '\n'
for peer in harness wharf local; do
    printf '%-10s' "$peer"
    for workload in "${workloads[@]}"; do
        more=$(($(collected "$peer" "$workload" "$long") - $(collected "$peer" "$workload" "$short")))
        printf '%10.1f' "$(bc <<<"scale=3; $more / ($long - $short)")"
    done
    printf '\n'
done
printf '%-10s' goal
for workload in "${workloads[@]}"; do printf '%10s' "$(goal "$workload")"; done
printf '\n'
