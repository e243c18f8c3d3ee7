#!/bin/sh
# Runs everything in this folder on the machine's GPU, and leaves one folder with the results:
#
#     ./run.sh [REPORT]
#
# Needs the driver's libcuda.so.1, a shell and coreutils, or busybox. Takes under ten minutes: each step has
# a limit. The exit status is 1 if a step failed; REPORT/summary.txt says which.
set -u

here=$(cd "$(dirname "$0")" && pwd)
report=${1:-report-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$report" && report=$(cd "$report" && pwd) || exit 2
[ ! -e "$report/summary.txt" ] || { echo "$report has a report already: name another folder" >&2; exit 2; }

# With the system's C library where it will do, else with the one that was brought along.
start="$here/lib/@LOADER@ --library-path $here/lib:${LD_LIBRARY_PATH:-}:/usr/local/nvidia/lib64:/usr/lib64:/usr/lib/$(uname -m)-linux-gnu:/usr/lib/wsl/lib"
"$here/bin/wharf" --version >/dev/null 2>&1 && start=

failed=0

# Runs a step with so many seconds at most; its output is a file of its name.
step() { # NAME SECONDS COMMAND...
    name=$1 limit=$2
    shift 2
    echo "$name, at most $limit s"
    begin=$(date +%s)
    # shellcheck disable=SC2086 # the loader's arguments are words
    (cd "$report" && exec timeout -k 5 "$limit" $start "$@") >"$report/$name.txt" 2>&1
    status=$?
    end=$(date +%s)
    [ "$status" -eq 0 ] && verdict=passed || { verdict="FAILED with status $status"; failed=1; }
    echo "$name: $verdict, $((end - begin)) s" >>"$report/summary.txt"
}

{
    cat "$here/built.txt"
    date
    uname -a
    grep -m 1 'model name' /proc/cpuinfo
    echo "cores: $(grep -c '^processor' /proc/cpuinfo)"
    grep -E 'MemTotal|MemAvailable|HugePages_Total' /proc/meminfo
    echo "memlock: $(ulimit -l 2>/dev/null || echo unknown)"
    cat /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null
    [ -z "$start" ] && echo "the system's C library" || echo "the C library of this folder"
    nvidia-smi 2>/dev/null && nvidia-smi topo -m 2>/dev/null
} >"$report/machine.txt"

wharf=$here/bin/wharf
step doctor 20 "$wharf" doctor --driver system
step qualify 120 "$wharf" qualify --driver system --html qualify.html --json qualify.json
step replay 60 "$wharf" replay --driver system --verify --html replay.html --json replay.json
step replay-packed 60 "$wharf" replay --driver system --verify --layout packed --json replay-packed.json
step replay-tiered 60 "$wharf" replay --driver system --verify --tiered --forecast context --json replay-tiered.json
step bench 60 "$wharf" bench --driver system
# The tests that are stamped for the system's driver; none may be skipped.
export WHARF_REQUIRE_GPU=1
step tests 170 "$here/bin/tests" system::

cat "$report/summary.txt"
echo "everything is in $report: qualify.html and replay.html open in a browser"
exit "$failed"
