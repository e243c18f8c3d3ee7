#!/usr/bin/env bash
# Checks wharf-nixl with real NIXL, on the software driver: the crate's tests between two processes, by
# TCP and by shared memory, and the example prefill_decode by both and by UCX's CUDA transports, whose calls
# of the driver are counted. Each patch of mutants/ has to be found by the tests.
#
#   nixl/check.sh DIR WHEEL     the driver and the example's output are kept in DIR; WHEEL is the folder
#                               that the wheel nixl-cu12 was unpacked in
#
# Needs g++, gcc and libclang: see README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
wheel=$(cd "$2" && pwd)
"$here/../softcuda/install.sh" "$work/driver"
libraries=$wheel/.nixl_cu12.mesonpy.libs:$wheel/nixl_cu12.libs
export LD_LIBRARY_PATH=$work/driver:$libraries NIXL_PLUGIN_DIR=$wheel/.nixl_cu12.mesonpy.libs/plugins
export WHARF_REQUIRE_NIXL=1 NIXL_LOG_LEVEL=ERROR UCX_LOG_LEVEL=error
cargo=(--quiet --locked --manifest-path "$here/Cargo.toml")
# To cargo the crate with a mistake, below, is this one: its paths are relative. So what an earlier check
# has left in the target folder is built again.
touch "$here/src/lib.rs"

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

by_tcp() { UCX_TLS=tcp,self UCX_NET_DEVICES=lo timeout 900 "$@"; }
by_shared_memory() { UCX_TLS=posix,sysv,cma,self WHARF_NIXL_SHARED=1 timeout 900 "$@"; }

cargo test "${cargo[@]}" --lib
cargo test "${cargo[@]}" --doc
cargo build "${cargo[@]}" --tests --example prefill_decode
by_tcp cargo test "${cargo[@]}" --test real
by_shared_memory cargo test "${cargo[@]}" --test real

target=$(cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
example=$target/debug/examples/prefill_decode
by_tcp "$example"
by_shared_memory "$example" shared

# UCX's CUDA transports. They are linked with NVML, of which there is none here: a library of the one
# function that they need of it.
mkdir -p "$work/nvml"
echo 'const char *nvmlErrorString(int code) { (void)code; return "no NVML"; }' >"$work/nvml/nvml.c"
gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o "$work/nvml/libnvidia-ml.so.1" "$work/nvml/nvml.c"
# The attribute is that devices have fabric handles, which are the ones that UCX exports.
said=$work/device.txt
LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$work/nvml SOFTCUDA_COUNTERS=1 SOFTCUDA_ATTRIBUTES=128=1 \
    SOFTCUDA_IMEX_CHANNEL=1 UCX_MEMTYPE_CACHE=n UCX_TLS=posix,sysv,cma,self,cuda_copy,cuda_ipc \
    timeout 300 "$example" shared device requests=12 >"$said" 2>&1 || { cat "$said"; exit 1; }
grep -v '^softcuda:' "$said"
calls() { sed -n "s/^softcuda: $1 //p" "$said" | awk '{ sum += $1 } END { print sum + 0 }'; }
blocks=$(sed -n 's/.* requests, \([0-9]*\) blocks of .*/\1/p' "$said")
copies=$(calls cuMemcpyDtoDAsync) exports=$(calls cuMemExportToShareableHandle) imports=$(calls cuMemImportFromShareableHandle)
echo "device: $blocks blocks by $copies copies; $exports exports, $imports imports"
[ "$exports" -gt 0 ] && [ "$imports" -gt 0 ] || { echo "UCX has not shared the memory"; exit 1; }
[ "$copies" -eq "$blocks" ] || { echo "a block is copied in fragments"; exit 1; }
# One copy to compute a block, one to compare it, and what UCX and the block tables add.
[ "$(calls cuMemcpyAsync)" -le $((2 * blocks + 64)) ] || { echo "UCX copies by way of the host"; exit 1; }

# Each mistake has to be found by the test that its first line names. The crate is copied, with the path
# to the library made absolute.
for patch in "$here"/mutants/*.patch; do
    copy=$work/mutant name=$(basename "$patch" .patch) test=$(sed -n 's/^test: //p' "$patch")
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r "$here/src" "$here/Cargo.toml" "$here/Cargo.lock" "$here/README.md" "$copy"
    sed -i "s|path = \"\.\.|path = \"$here/..|" "$copy/Cargo.toml"
    sed 1,2d "$patch" | patch --quiet --strip 1 --fuzz 0 --directory "$copy"
    mutant=(--quiet --locked --manifest-path "$copy/Cargo.toml" --lib)
    # One that does not compile is found by nothing.
    CARGO_TARGET_DIR=$target cargo test "${mutant[@]}" --no-run
    CARGO_TARGET_DIR=$target timeout 300 cargo test "${mutant[@]}" -- "$test" >"$work/mutant.txt" 2>&1 || true
    grep -qE "^(test )?tests::$test.* (\.\.\.|---) FAILED" "$work/mutant.txt" || { cat "$work/mutant.txt"; echo "$name is not found"; exit 1; }
    echo "mutant $name: found"
done
