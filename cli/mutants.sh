#!/usr/bin/env bash
# Checks `wharf qualify`: with one mistake of loom_tests/mutants at a time in the library, it exits with 1
# and says of the promise below that it fails; without, it exits with 0. Works on a copy of the checkout.
# QUALIFY_TARGET_DIR may name a build directory to keep between runs. Arguments, if any, are the mutants
# to check, by name.
set -euo pipefail

# The mutant, and the promise that it breaks.
broken=(
    "staging-completion-not-checked staging/ring"
    "staging-destination-not-guarded staging/reader"
    "event-query-spoils-capture graph/beside"
    "copy-not-cut pool/pieces"
    "ladder-skips-out-of-memory pool/memory"
    "tier-writes-beside-a-copy tier/writer"
)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=${QUALIFY_TARGET_DIR:-$work/target}
# A mutant differs in one place: only what depends on it is compiled anew.
export CARGO_INCREMENTAL=1 RUSTFLAGS=--cap-lints=allow

# Files are as new as the copy: in a build directory that was kept, what was built last is the last mutant.
mkdir "$work/copy"
(cd "$root" && tar -cf - --exclude=./target --exclude=./.build --exclude=./.git --exclude=./bench --exclude=./fuzz .) | tar -xmf - -C "$work/copy"
cd "$work/copy"

# Builds the command and runs it: sets `status`, and `failing` to the promises that fail.
qualify() {
    cargo build --quiet -p wharf-cli --bin wharf >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    status=0
    timeout 300 "$CARGO_TARGET_DIR/debug/wharf" qualify --driver softcuda >"$work/out" 2>&1 || status=$?
    failing=$(sed -n 's/^FAILS *\([^ ]*\) .*/\1/p' "$work/out" | tr '\n' ' ')
}

qualify
[ "$status" -eq 0 ] && [ -z "$failing" ] || { echo "without a mistake: status $status, $failing"; cat "$work/out"; exit 1; }
echo "without a mistake every promise holds or is not offered"

total=0 told=0
for pair in "${broken[@]}"; do
    read -r mutant promise <<<"$pair"
    [ $# -eq 0 ] || [[ " $* " == *" $mutant "* ]] || continue
    total=$((total + 1))
    patch --quiet --strip 1 --fuzz 0 --no-backup-if-mismatch <"loom_tests/mutants/$mutant.patch"
    qualify
    patch --quiet --strip 1 --fuzz 0 --reverse --no-backup-if-mismatch <"loom_tests/mutants/$mutant.patch"
    if [ "$status" -eq 1 ] && [[ " $failing" == *" $promise "* ]]; then
        echo "told    $mutant: $failing"
        told=$((told + 1))
    else
        echo "MISSED  $mutant: status $status, $failing"
        tail -5 "$work/out"
    fi
done
echo "told $told of $total"
[ "$told" -eq "$total" ] && [ "$total" -gt 0 ]
