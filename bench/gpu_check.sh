#!/usr/bin/env bash
# Checks what bench/gpu.sh builds: its run.sh in a root that has nothing but busybox and softcuda as
# libcuda.so.1, without a network, leaves a report in which every step passed. Needs root and a static
# busybox. FOLDER is where the folder, the root and the report are made.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: bench/gpu_check.sh FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd)
bare=$folder/root
rm -rf "$bare" "$folder/gpu"
mkdir -p "$bare"/{bin,dev,proc,tmp,usr/lib64,gpu}

"$here/gpu.sh" "$folder/gpu"
"$here/../softcuda/install.sh" "$bare/usr/lib64"
cp -r "$folder/gpu/." "$bare/gpu/"
cp "$(command -v busybox)" "$bare/bin/busybox"
for command in sh cat date dirname mkdir uname grep timeout; do ln -s busybox "$bare/bin/$command"; done
for device in null zero full; do touch "$bare/dev/$device"; done

# In spaces of its own: no network, mounts that end with it, the processes of this run alone.
status=0
unshare --net --mount --pid --fork bash -euc '
    for device in null zero full; do mount --bind /dev/$device "$1/dev/$device"; done
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/tmp"
    exec chroot "$1" /bin/busybox env -i PATH=/bin SOFTCUDA_SCHEDULE="${SOFTCUDA_SCHEDULE:-async}" /gpu/run.sh /report
' - "$bare" || status=$?
cat "$bare/report/summary.txt"
for file in machine.txt qualify.html qualify.json replay.html replay.json tests.txt; do
    [ -s "$bare/report/$file" ] || { echo "the report lacks $file"; exit 1; }
done
exit "$status"
