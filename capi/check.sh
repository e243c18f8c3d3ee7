#!/usr/bin/env bash
# What must hold of libwharf, on the software driver: it installs, and programs in C and C++ build against
# what is installed, by CMake and by pkg-config, without a warning; engines get the right bytes under every
# schedule, whatever goes first; every function answers wrong arguments by a status; the sanitizers find
# nothing; a call costs little more than the library's own.
#
#   capi/check.sh DIR     what is made is kept in DIR
#
# Needs cargo, gcc, g++, cmake, pkg-config, valgrind.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
mkdir -p "$1"
dir=$(cd "$1" && pwd)
prefix="$dir/moved prefix" driver=$dir/driver tests=$here/tests/c
strict=(-Wall -Wextra -Werror -O1 -g)

"$root/softcuda/install.sh" "$driver"
# What is built below finds a prefix that was moved, with a space in its name.
rm -rf "$prefix"
"$here/install.sh" "$dir/prefix"
mv "$dir/prefix" "$prefix"
export LD_LIBRARY_PATH=$driver

# misuse.c closes a pool that is in use, and PyTorch's pools live as long as the process.
not_leaks=source-stable,bounds,use-after-free,peer-access,overlap,race

# Runs a program under one schedule with all checks: a violation is a line that it prints.
clean() { # SCHEDULE PROGRAM ARGUMENT...
    local schedule=$1 said
    shift
    said=$(SOFTCUDA_SCHEDULE=$schedule SOFTCUDA_CHECK=${checks:-all} "$@" 2>&1) || { echo "$*, $schedule: $(head -n 20 <<<"$said")"; return 1; }
    [ -z "$said" ] || { echo "$*, $schedule: $(head -n 20 <<<"$said")"; return 1; }
}

under_all() { # PROGRAM
    local seed
    for seed in async late eager; do clean "$seed" "$1" 1; done
    for seed in $(seq 50); do clean "random:$seed" "$1" "$seed"; done
    echo "$(basename "$1"): 53 schedules, right bytes, nothing left"
}

by_cmake() {
    cmake -S "$tests" -B "$dir/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_LIBRARY_PATH="$driver" >"$dir/cmake.log"
    cmake --build "$dir/cmake" >>"$dir/cmake.log"
    under_all "$dir/cmake/engine_c"
    under_all "$dir/cmake/engine_cpp"
    clean async "$dir/cmake/engine_static" 1
    checks=$not_leaks clean async "$dir/cmake/misuse"
    clean async "$dir/cmake/threads"
    clean async "$dir/cmake/callbacks"
    clean async "$dir/cmake/owners"
    echo "misuse, threads, callbacks, owners, statically linked engine: as they must"
}

by_pkg_config() {
    local flags
    # Words as a shell reads them: a space in the prefix is escaped.
    eval "flags=($(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --cflags --libs wharf))"
    gcc -std=c11 "${strict[@]}" "$tests/engine.c" "${flags[@]}" -L"$driver" -lcuda -o "$dir/engine"
    LD_LIBRARY_PATH=$driver:$prefix/lib "$dir/engine"
    g++ -std=c++17 -fsyntax-only "${strict[@]}" "$tests/engine.cpp" "${flags[@]}"
    # The program of README.md, as a reader copies it.
    sed -n '/^```c$/,/^```$/p' "$here/README.md" | grep -v '^```' >"$dir/readme.c"
    gcc -std=c11 "${strict[@]}" "$dir/readme.c" "${flags[@]}" -o "$dir/readme"
    LD_LIBRARY_PATH=$driver:$prefix/lib clean async "$dir/readme"
}

# misuse.c names every function of the header.
names_all() {
    local name missing=0
    for name in $(grep -oE '\bwharf_[a-z_]+\(' "$here/include/wharf.h" | sort -u | tr -d '('); do
        case $name in wharf_last_error | wharf_wait_deferred | wharf_log) continue ;; esac
        grep -q "\b$name(" "$tests/misuse.c" || { echo "misuse.c does not call $name"; missing=1; }
    done
    return "$missing"
}

# The library, and programs over it, with a sanitizer. gcc compiles the programs, and rustc links them, for
# both halves must have one runtime.
sanitized() { # NAME RUST-FLAGS PROGRAM...
    local name=$1 flags=$2 program at=$dir/$1/x86_64-unknown-linux-gnu/debug
    shift 2
    export RUSTC_BOOTSTRAP=1
    # shellcheck disable=SC2086 # flags are words
    CARGO_TARGET_DIR=$dir/$name RUSTFLAGS="-Zsanitizer=$name $flags" \
        cargo build --quiet --manifest-path "$here/Cargo.toml" --target x86_64-unknown-linux-gnu
    for program; do
        gcc -std=c11 "${strict[@]}" -fsanitize="$name" -Dmain=c_main -c -I"$here/include" \
            "$tests/$program.c" -o "$dir/$program-$name.o"
        # shellcheck disable=SC2086 # as above
        rustc --edition 2024 -Zsanitizer="$name" $flags --target x86_64-unknown-linux-gnu "$tests/program.rs" \
            --extern wharf_capi="$at/libwharf_capi.rlib" -L dependency="$at/deps" -L dependency="$dir/$name/debug/deps" \
            -Zpre-link-arg="$dir/$program-$name.o" -Clink-arg=-L"$driver" -Clink-arg=-lcuda -o "$dir/$program-$name"
        clean async "$dir/$program-$name"
    done
    unset RUSTC_BOOTSTRAP
    echo "$name sanitizer: nothing in $*"
}

# Instructions of a block's allocation and free, of a step, and of a fetch whose results are read, through C
# and in Rust, without what the driver takes. The goal, 60 more for each call, is reached; the limits are a little
# above what was counted, since the C library differs by processor.
overhead() {
    local rust
    rust=$(cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/examples/overhead
    cargo build --quiet --release --manifest-path "$here/Cargo.toml" --example overhead
    gcc -std=c11 "${strict[@]}" -O2 -I"$here/include" "$tests/overhead.c" -L"$prefix/lib" -lwharf -Wl,-rpath,"$prefix/lib" -o "$dir/overhead"
    compare alloc "alloc and free" 2 58
    compare step "a step: begin, slot, submit" 3 62
    compare results "results: fetch, wait, read, release" 4 48
}

compare() { # LOOP WHAT CALLS LIMIT
    local ours theirs more
    ours=$(turn "$rust" "$1") theirs=$(turn "$dir/overhead" "$1")
    more=$(((theirs - ours + $3 - 1) / $3))
    echo "$2: $ours instructions in Rust, $theirs through C: $more more a call; goal 60, limit $4"
    [ "$theirs" -gt 0 ] && [ "$more" -le "$4" ]
}

turn() { # PROGRAM LOOP
    echo "$((($(collected "$1" "$2" 2500) - $(collected "$1" "$2" 500) + 1000) / 2000))"
}

# Instructions of the first thread, less those of its calls of the driver and of what these call: callgrind's
# costs of functions, and of calls from one object to another.
collected() { # PROGRAM LOOP COUNT
    rm -f "$dir"/callgrind-*
    SOFTCUDA_SCHEDULE=eager valgrind --quiet --tool=callgrind --separate-threads=yes \
        --callgrind-out-file="$dir/callgrind" "$@" >"$dir/callgrind.log" 2>&1
    awk '
        function object(id, name) {
            sub(/^c?ob=/, "", id); name = id
            sub(/\).*/, ")", id); sub(/^\([0-9]+\) ?/, "", name)
            if (name != "") names[id] = name
            return names[id]
        }
        /^ob=/ { is_driver = object($0) ~ /libcuda/; next }
        /^cob=/ { is_called = object($0) ~ /libcuda/; next }
        /^calls=/ { of_a_call = 1; next }
        /^[0-9+*-]/ { if (!of_a_call) sum += $2
                      else if (is_called && !is_driver) sum -= $2
                      of_a_call = is_called = 0 }
        END { printf "%d\n", sum }' "$dir/callgrind-01"
}

names_all
by_cmake
by_pkg_config
# The pool that misuse.c gives up on purpose is no leak to look for.
ASAN_OPTIONS=detect_leaks=0 checks=$not_leaks sanitized address "" misuse
LSAN_OPTIONS=suppressions=$tests/lsan.supp:print_suppressions=0 sanitized address "" engine
cat "$root/softcuda/tsan.supp" "$tests/tsan.supp" >"$dir/tsan.supp"
TSAN_OPTIONS=suppressions=$dir/tsan.supp sanitized thread -Cunsafe-allow-abi-mismatch=sanitizer threads
overhead
