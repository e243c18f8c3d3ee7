#!/usr/bin/env bash
# Builds what a machine with a GPU needs into FOLDER, so that it needs no toolchain and no network:
#
#     bench/gpu.sh FOLDER            here
#     FOLDER/run.sh [REPORT]         there: under ten minutes, one report folder
#
# The binaries want a glibc as new as this machine's. Where the other machine's is older, or there is none,
# run.sh starts them with the loader and the libraries in FOLDER/lib. The benches of bench/ are left out:
# they need no device.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: bench/gpu.sh FOLDER" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd)
cd "$root"
export CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-line-tables-only}
target=${CARGO_TARGET_DIR:-target}

cargo build --quiet --release -p wharf-cli --bin wharf
# Assertions and checks of overflow belong to the tests, so they are not optimised.
cargo test --quiet -p wharf-cuda --test it --no-run
tests=$(cargo test -p wharf-cuda --test it --no-run --quiet --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/it-[0-9a-f]*\)".*/\1/p' | tail -n 1)
[ -x "$tests" ] || { echo "cargo did not say where the tests are" >&2; exit 1; }

mkdir -p "$folder/bin" "$folder/lib"
cp "$target/release/wharf" "$folder/bin/"
cp "$tests" "$folder/bin/tests"
strip --strip-debug "$folder/bin/"* 2>/dev/null || true

# What the binaries load, and what a driver of NVIDIA loads of the same C library.
loader=
while read -r library; do
    cp -L "$library" "$folder/lib/"
    case $library in *ld-linux*) loader=$(basename "$library") ;; esac
done < <(ldd "$folder/bin/"* | grep -o '/[^ ]*\.so[^ ]*' | sort -u)
[ -n "$loader" ] || { echo "the binaries have no loader" >&2; exit 1; }
near=$(dirname "$(ldd "$folder/bin/wharf" | sed -n 's/.*libc\.so\.6 => \([^ ]*\).*/\1/p')")
for library in libdl.so.2 libpthread.so.0 librt.so.1; do
    [ ! -e "$near/$library" ] || cp -L "$near/$library" "$folder/lib/"
done

{
    echo "wharf $(git rev-parse HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD 2>/dev/null || echo ', changed')"
    rustc --version
    ldd --version | sed -n 1p # to its end: `head` would leave ldd writing to a closed pipe
} >"$folder/built.txt"
sed "s/@LOADER@/$loader/" bench/gpu_run.sh >"$folder/run.sh"
chmod +x "$folder/run.sh"
du -sh "$folder"
