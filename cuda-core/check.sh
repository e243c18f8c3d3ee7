#!/usr/bin/env bash
# Checks wharf-cuda-core: its documentation without a warning, what would be published, and, on the
# software driver, which cuda-core loads as any other, its tests, and the example cuda_core_engine under
# every schedule with all checks, with another order of drops each time.
#
#   cuda-core/check.sh DIR     the driver is kept in DIR
#
# Needs libclang and NVIDIA's headers cuda.h, curand.h and those they include: see README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
driver=$(cd "$1" && pwd)
"$here/../softcuda/install.sh" "$driver"
export LD_LIBRARY_PATH=$driver WHARF_REQUIRE_GPU=1
cargo=(--quiet --locked --manifest-path "$here/Cargo.toml" --features cuda-async)

RUSTDOCFLAGS="-D warnings" cargo doc "${cargo[@]}" --no-deps

# The README and the licences, the sources, and nothing that is of use in the checkout only.
published=$(cargo package --quiet --locked --allow-dirty --list --manifest-path "$here/Cargo.toml")
for file in Cargo.toml README.md LICENSE-MIT LICENSE-APACHE $(cd "$here" && echo src/*.rs); do
    grep -qx "$file" <<<"$published" || { echo "the package lacks $file"; exit 1; }
done
if grep -vxE '\.cargo_vcs_info\.json|Cargo\.(lock|toml|toml\.orig)|README\.md|LICENSE-(MIT|APACHE)|src/.*\.rs' <<<"$published"; then
    echo "the package must not hold these"
    exit 1
fi

for schedule in async late; do
    SOFTCUDA_SCHEDULE=$schedule cargo test "${cargo[@]}"
done

cargo build "${cargo[@]}" --example cuda_core_engine
target=$(cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
engine=$target/debug/examples/cuda_core_engine
# A context and idle streams are left: cuda-async keeps a context, and cuda-core streams, for the
# process.
clean() { # SCHEDULE SEED
    local said
    if said=$(SOFTCUDA_SCHEDULE=$1 SOFTCUDA_CHECK=all "$engine" "$2" 2>&1); then
        said=$(grep -vE 'leaks: at the end: (context|stream) ' <<<"$said" || true)
        [ -n "$said" ] || return 0
    fi
    echo "engine $2, $1: $(head -n 20 <<<"$said")"
    return 1
}
for schedule in async late eager; do clean "$schedule" 1; done
for seed in $(seq 50); do clean "random:$seed" "$seed"; done
echo "engine: 53 schedules, right bytes, nothing of wharf left"
