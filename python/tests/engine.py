"""An engine's decode loop with cuda.core, on softcuda as ``libcuda.so.1``, in a process of its own.

    engine.py SCHEDULE...

Inputs by wharf, a graph for each bucket that cuda.core captures and that reads the static buffers,
buffers of wharf's pool behind cuda.core's memory resource as the ends of its copies, results by
wharf's fetches and in pinned memory, and everything dropped in a random order. Each schedule runs
in a child that is forked before the driver is loaded, with all checks. A line of JSON for each says
what was found.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import traceback
from typing import Any

import cuda.core
import numpy as np
from cuda.bindings import driver

import wharf
import wharf.cuda_core

STEPS = 40
BUCKETS = (1, 4, 8)
CHILDREN = 8  # they wait most of the time


def check(result: tuple[Any, ...]) -> Any:
    """The value of a driver call that must not fail."""
    assert result[0] == 0, result
    return result[1] if len(result) == 2 else result[1:]


def capture(
    device: Any,
    inputs: wharf.InputBuffers,
    outputs: wharf.OutputBuffers,
    bucket: int,
    out: Any,
    lens: Any,
) -> Any:
    """A graph of cuda.core's that reads the inputs of a bucket where they always are, and writes
    results where those are."""
    builder = device.create_graph_builder()
    with wharf.Device(0).capture_elsewhere():
        builder.begin_building()
        stream = int(builder.stream.handle)
        for slot, to in (("ids", out), ("lens", lens)):
            array = inputs.array(slot, bucket)
            check(driver.cuMemcpyDtoDAsync(int(to.handle), array.ptr, array.nbytes, stream))
        ids, echo = inputs.array("ids", bucket), outputs.array("echo", bucket)
        check(driver.cuMemcpyDtoDAsync(echo.ptr, ids.ptr, ids.nbytes, stream))
        inputs.keep_alive_in_capture(builder.stream)
        outputs.keep_alive_in_capture(builder.stream)
        builder.end_building()
    return builder.complete()


def decode(order: random.Random) -> None:
    """Runs the engine, compares every byte, and drops everything in a random order."""
    device = cuda.core.Device(0)
    device.set_current()
    ours = wharf.Device(0)
    model, copies = device.create_stream(), device.create_stream()
    pool = wharf.Pool(ours, 32 << 20, name="activations")
    results = wharf.Pool(ours, 8 << 20, "pinned", name="results")
    resource = wharf.cuda_core.MemoryResource(pool)
    inputs = wharf.InputBuffers(
        ours,
        [
            wharf.Slot("ids", "int32", wharf.TOKENS, pad=-1),
            wharf.Slot("lens", "int64", wharf.REQUESTS),
        ],
        BUCKETS,
    )
    outputs = wharf.OutputBuffers(
        ours,
        [wharf.Slot("echo", "int32", wharf.TOKENS)],
        BUCKETS,
        ring_depth=4,
    )
    out = resource.allocate(4 * BUCKETS[-1], stream=model)
    lens = resource.allocate(8 * BUCKETS[-1], stream=model)
    graphs = {bucket: capture(device, inputs, outputs, bucket, out, lens) for bucket in BUCKETS}
    pending: list[tuple[wharf.Results, wharf.Buffer, wharf.Buffer, list[int], int]] = []
    for number in range(STEPS):
        tokens = order.choice((1, 2, 3, 4, 6, 8))
        values = [number * 100 + token for token in range(tokens)]
        with inputs.begin(tokens, 1) as step:
            step["ids"] = values
            step["lens"] = number
            staged = step.submit(copies)
        bucket = staged.padded[0]
        ids = results.alloc(bucket, "int32", stream=model)
        last = results.alloc(1, "int64", stream=model)
        with staged.reader(model):
            graphs[bucket].launch(model)
        echo = outputs.fetch(tokens, 1, model)
        for to, source in ((ids, out), (last, lens)):
            # cuda.core's buffer as the source: DLPack.
            whole = cuda.core.Buffer.from_handle(int(source.handle), to.nbytes, owner=source)
            to.copy_from(whole, stream=model)
        pending.append((echo, ids, last, values + [-1] * (bucket - tokens), number))
        if len(pending) > 2:
            verify(*pending.pop(0))
        scratch = resource.allocate(order.randrange(1, 1 << 16), stream=model)
        scratch.fill(number, stream=model)
        scratch.close(stream=model)
    for done in pending:
        verify(*done)
    copies.sync()
    model.sync()
    sets = [inputs, outputs, *graphs.values()]
    everything = [*sets, out, lens, resource, pool, results, ours, model, copies]
    del inputs, outputs, echo, graphs, out, lens, resource, pool, results, ours, model, copies
    del step, staged, ids, last, source, whole, scratch, done, pending, to
    order.shuffle(everything)
    while everything:
        everything.pop()
        gc.collect()


def verify(
    echo: wharf.Results,
    ids: wharf.Buffer,
    last: wharf.Buffer,
    values: list[int],
    number: int,
) -> None:
    """Compares the results of a step, when the device is past them."""
    with echo:
        tokens, _requests = echo.counts
        assert echo["echo"].tolist() == values[:tokens]
    assert np.asarray(ids).tolist() == values, (np.asarray(ids).tolist(), values)
    assert np.asarray(last).tolist() == [number]


def run(schedule: str) -> None:
    """One schedule, in a child of its own."""
    decode(random.Random(schedule))
    gc.collect()
    device = wharf.Device(0)
    device.wait_deferred()
    errors = device.drop_errors
    del device
    gc.collect()
    # cuda.core's own reference, which it keeps for the life of the process.
    check(driver.cuDevicePrimaryCtxRelease(0))
    _flags, active = check(driver.cuDevicePrimaryCtxGetState(0))
    line = json.dumps({"schedule": schedule, "active": active, "errors": errors}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())  # whole, beside other children's


def child(schedule: str) -> int:
    """Starts a child for a schedule. Returns its process number."""
    number = os.fork()
    if number != 0:
        return number
    os.environ["SOFTCUDA_SCHEDULE"] = schedule
    os.environ["SOFTCUDA_CHECK"] = "all"
    try:
        run(schedule)
    except BaseException:
        traceback.print_exc()
        sys.exit(f"{schedule} failed")
    # Not at once: the machine's leaks are reported when the process ends.
    sys.exit()


def main() -> None:
    waiting, failed = list(sys.argv[1:]), False
    running: set[int] = set()
    while waiting or running:
        while waiting and len(running) < CHILDREN:
            running.add(child(waiting.pop(0)))
        number, status = os.wait()
        running.discard(number)
        failed = failed or status != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
