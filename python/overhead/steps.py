"""What a step costs in Python: the loop of ``examples/step_loop.rs``, by kind of write.

    steps.py STEPS        prints nanoseconds a step: copies, views
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import wharf
from wharf import REQUESTS, TOKENS, Slot


ROUNDS = 100


def main() -> None:
    steps = int(sys.argv[1])
    device = wharf.Device(0)
    stream = wharf.Stream(device)
    slots = [
        Slot("ids", "int32", TOKENS),
        Slot("positions", "int64", TOKENS),
        Slot("mapping", "int64", TOKENS),
        Slot("lens", "int32", REQUESTS),
        Slot("tables", "int32", REQUESTS * 16),
        Slot("temperature", "float32", REQUESTS),
    ]
    inputs = wharf.InputBuffers(device, slots, [1, 8])
    ints, longs = np.full(8, 1, np.int32), np.full(8, 2, np.int64)
    tables, floats = np.full((8, 16), 3, np.int32), np.full(8, 0.5, np.float32)

    def copies() -> None:
        step = inputs.begin(8, 8)
        step["ids"] = ints
        step["positions"] = longs
        step["mapping"] = longs
        step["lens"] = ints
        step["tables"] = tables
        step["temperature"] = floats
        step.submit(stream)

    def views() -> None:
        step = inputs.begin(8, 8)
        step["ids"][:] = ints
        step["positions"][:] = longs
        step["mapping"][:] = longs
        step["lens"][:] = ints
        step["tables"][:] = tables
        step["temperature"][:] = floats
        step.submit(stream)

    print(nanoseconds(copies, steps), nanoseconds(views, steps))


def nanoseconds(stage: Callable[[], None], steps: int) -> int:
    """The time of a call: the best of many rounds, since the machine does other things, too."""
    calls, rounds = steps // ROUNDS, []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(calls):
            stage()
        rounds.append((time.perf_counter_ns() - start) // calls)
    return min(rounds)


main()
