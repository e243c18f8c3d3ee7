#!/usr/bin/env bash
# Checks the models: each patch in mutants/ is one mistake in the real code, and the model that
# its first line names must fail on it. Works on a copy of the checkout that holds this script,
# from any directory. MUTANTS_TARGET_DIR may name a build directory to keep between runs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=${MUTANTS_TARGET_DIR:-$work/target}
export RUSTFLAGS="--cfg loom -C debug-assertions=on --cap-lints allow"
# A mutant differs in one place: only what depends on it is compiled anew.
export CARGO_PROFILE_RELEASE_INCREMENTAL=true
export LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-2}

# Everything but build outputs and history; softcuda and sys are workspace members.
mkdir "$work/copy"
(cd "$root" && tar -cf - --exclude=./target --exclude=./.build --exclude=./.git --exclude=./bench --exclude=./fuzz .) | tar -xf - -C "$work/copy"
cd "$work/copy"

run() {
    cargo test --quiet --release --lib -p wharf -- "$@"
}

# Unmutated, every model passes; what they are called in full is the same for all mutants.
run --list >"$work/names" 2>"$work/log" || { cat "$work/log"; exit 1; }
run loom_tests >"$work/log" 2>&1 || { echo "a model fails on the unmutated code"; cat "$work/log"; exit 1; }

total=0 caught=0
for patch in "$here"/mutants/*.patch; do
    total=$((total + 1))
    mutant=$(basename "$patch" .patch)
    short=$(sed -n '1s/^model: //p' "$patch")
    full=$(sed -n "s/^\(.*::$short\): test\$/\1/p" "$work/names")
    if [ -z "$full" ]; then
        echo "FAULT   $mutant: no model '$short'"
        continue
    fi
    if ! patch --quiet --strip 1 --fuzz 0 --no-backup-if-mismatch <"$patch" >"$work/log" 2>&1; then
        echo "FAULT   $mutant: the patch does not apply"
        cat "$work/log"
        exit 1
    fi
    if ! cargo test --quiet --release --lib -p wharf --no-run >"$work/log" 2>&1; then
        echo "FAULT   $mutant: does not compile"
        tail -5 "$work/log"
    # A mutant may also hang: what loom explores is finite, so a run without end is a finding too.
    elif timeout "${MUTANT_TIMEOUT:-120}" cargo test --quiet --release --lib -p wharf -- --exact "$full" \
        >"$work/log" 2>&1; then
        echo "MISSED  $mutant by $short"
    else
        echo "caught  $mutant by $short"
        caught=$((caught + 1))
    fi
    patch --quiet --strip 1 --fuzz 0 --reverse --no-backup-if-mismatch <"$patch"
done
echo "caught $caught of $total"
[ "$caught" -eq "$total" ] && [ "$total" -gt 0 ]
