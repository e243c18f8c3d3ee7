#!/usr/bin/env bash
# Builds libwharf and installs it under PREFIX: lib/libwharf.so and .a, include/wharf.h and .hpp, and what
# pkg-config and CMake's find_package(wharf) look for. PREFIX may be moved later. Needs cargo.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: capi/install.sh PREFIX" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
prefix=$(cd "$1" && pwd)

cargo build --quiet --release --manifest-path "$here/Cargo.toml"
# Where cargo puts it, also where its own configuration says so, and the package's version.
metadata=$(cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$here/Cargo.toml")
target=$(sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p' <<<"$metadata")
version=$(cargo pkgid --manifest-path "$here/Cargo.toml" | sed 's/.*[#@]//')

mkdir -p "$prefix"/{include,lib/pkgconfig,lib/cmake/wharf}
# Renamed into place: a program that still has the old file mapped keeps it whole.
for file in so a; do
    cp "$target/release/libwharf_capi.$file" "$prefix/lib/.libwharf.$file.$$"
done
mv -f "$prefix/lib/.libwharf.so.$$" "$prefix/lib/libwharf.so.$version"
mv -f "$prefix/lib/.libwharf.a.$$" "$prefix/lib/libwharf.a"
ln -sfn "libwharf.so.$version" "$prefix/lib/libwharf.so.0"
ln -sfn libwharf.so.0 "$prefix/lib/libwharf.so"
cp "$here"/include/wharf.h "$here"/include/wharf.hpp "$prefix/include/"
cp "$here"/cmake/wharf-config.cmake "$prefix/lib/cmake/wharf/"
sed "s/@VERSION@/$version/" "$here"/cmake/wharf-config-version.cmake.in >"$prefix/lib/cmake/wharf/wharf-config-version.cmake"
sed "s/@VERSION@/$version/" "$here"/wharf.pc.in >"$prefix/lib/pkgconfig/wharf.pc"
