#!/usr/bin/env bash
# What must hold of wharf-cudarc, on the software driver, which cudarc loads as any other: its tests, and the
# example cudarc_engine under every schedule with all checks, with another order of drops each time.
#
#   cudarc/check.sh DIR     the driver is kept in DIR
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
driver=$(cd "$1" && pwd)
"$here/../softcuda/install.sh" "$driver"
export LD_LIBRARY_PATH=$driver WHARF_REQUIRE_GPU=1

for schedule in async late; do
    SOFTCUDA_SCHEDULE=$schedule cargo test --quiet --manifest-path "$here/Cargo.toml"
done

cargo build --quiet --manifest-path "$here/Cargo.toml" --example cudarc_engine
target=$(cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
clean() { # SCHEDULE SEED
    local said
    said=$(SOFTCUDA_SCHEDULE=$1 SOFTCUDA_CHECK=all "$target/debug/examples/cudarc_engine" "$2" 2>&1) &&
        [ -z "$said" ] || { echo "engine $2, $1: $(head -n 20 <<<"$said")"; return 1; }
}
for schedule in async late eager; do clean "$schedule" 1; done
for seed in $(seq 50); do clean "random:$seed" "$seed"; done
echo "engine: 53 schedules, right bytes, nothing left"
