#!/usr/bin/env bash
# Builds the software driver and puts it into DIR as libcuda.so.1 and libcuda.so, so that
# LD_LIBRARY_PATH=DIR makes any program use it.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: softcuda/install.sh DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
# The soname that programs look for: one that was linked with `-lcuda` asks for `libcuda.so.1`.
cargo rustc --quiet --manifest-path "$root/Cargo.toml" -p softcuda --release --lib \
    -- -C link-arg=-Wl,-soname,libcuda.so.1

# Renamed into place: a program that still has the old file mapped keeps it whole.
cp "${CARGO_TARGET_DIR:-$root/target}/release/libsoftcuda.so" "$1/.libcuda.so.$$"
mv -f "$1/.libcuda.so.$$" "$1/libcuda.so.1"
ln -sfn libcuda.so.1 "$1/libcuda.so"
