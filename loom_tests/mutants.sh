#!/usr/bin/env bash
# Checks the models and the tests: each patch in mutants/ is one mistake in the real code, and what its
# first line names must fail on it: `model: NAME` under loom, `test: NAME` of tests/it on the software
# driver. Works on a copy of the checkout that holds this script, from any directory.
# MUTANTS_TARGET_DIR and MUTANTS_TEST_TARGET_DIR may name build directories to keep between runs; nothing
# else may be built in the latter, since cargo does not tell the copy's packages from the checkout's.
# Arguments, if any, are the mutants to check, by name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
models=${MUTANTS_TARGET_DIR:-$work/target}
tests=${MUTANTS_TEST_TARGET_DIR:-$work/target/tests}
export LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-2}
# A mutant differs in one place: only what depends on it is compiled anew, of models too.
export CARGO_INCREMENTAL=1

# Everything but build outputs and history; softcuda and sys are workspace members. Files are as new as the
# copy: in a build directory that was kept, what was built last is the last mutant.
mkdir "$work/copy"
(cd "$root" && tar -cf - --exclude=./target --exclude=./.build --exclude=./.git --exclude=./bench --exclude=./fuzz .) | tar -xmf - -C "$work/copy"
cd "$work/copy"

run() { # KIND SECONDS ARGUMENT...
    local kind=$1 limit=$2
    shift 2
    case $kind in
        model)
            CARGO_TARGET_DIR=$models RUSTFLAGS="--cfg loom" \
                timeout "$limit" cargo test --quiet --profile model --lib -p wharf-cuda "$@"
            ;;
        # Nothing is read of a failure but that it is one, and links are half as long without lines.
        test)
            CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tests \
                timeout "$limit" cargo test --quiet --test it -p wharf-cuda "$@"
            ;;
    esac
}

patches=()
for patch in "$here"/mutants/*.patch; do
    if [ $# -eq 0 ] || [[ " $* " == *" $(basename "$patch" .patch) "* ]]; then patches+=("$patch"); fi
done
kinds=$(sed -n '1s/: .*//p' -s "${patches[@]}" | sort -u)

# Unmutated, everything named passes; what models are called in full is the same for all mutants. A mutant may
# hang: what loom explores and what tests do is finite, so one that takes longer than all of its kind did
# together is a finding, too.
declare -A most
for kind in $kinds; do
    run "$kind" 0 -- --list >"$work/names.$kind" 2>"$work/log" || { cat "$work/log"; exit 1; }
    named=()
    while read -r short; do
        full=$(sed -n "s/^\(\(.*::\)\?$short\): test\$/\1/p" "$work/names.$kind")
        [ -n "$full" ] || { echo "FAULT   no $kind '$short'"; exit 1; }
        named+=("$full")
    done < <(sed -n "1s/^$kind: //p" -s "${patches[@]}" | sort -u)
    begin=$SECONDS
    run "$kind" 0 -- --exact "${named[@]}" >"$work/log" 2>&1 || { echo "a $kind fails on the unmutated code"; cat "$work/log"; exit 1; }
    most[$kind]=$((20 + SECONDS - begin))
done

total=0 caught=0
for patch in "${patches[@]}"; do
    total=$((total + 1)) begin=$SECONDS
    mutant=$(basename "$patch" .patch)
    IFS=': ' read -r kind short <"$patch"
    full=$(sed -n "s/^\(\(.*::\)\?$short\): test\$/\1/p" "$work/names.$kind")
    if ! patch --quiet --strip 1 --fuzz 0 --no-backup-if-mismatch <"$patch" >"$work/log" 2>&1; then
        echo "FAULT   $mutant: the patch does not apply"
        cat "$work/log"
        exit 1
    fi
    if ! run "$kind" 0 --no-run >"$work/log" 2>&1; then
        echo "FAULT   $mutant: does not compile"
        tail -5 "$work/log"
    elif run "$kind" "${most[$kind]}" -- --exact "$full" >"$work/log" 2>&1; then
        echo "MISSED  $mutant by $short"
    else
        echo "caught  $mutant by $short in $((SECONDS - begin)) s"
        caught=$((caught + 1))
    fi
    patch --quiet --strip 1 --fuzz 0 --reverse --no-backup-if-mismatch <"$patch"
done
echo "caught $caught of $total"
[ "$caught" -eq "$total" ] && [ "$total" -gt 0 ]
