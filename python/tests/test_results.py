"""Results: fetches, views, what holds them."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import wharf
from wharf import REQUESTS, TOKENS, OutputBuffers, Slot


def outputs_of(device: wharf.Device, **options: object) -> OutputBuffers:
    slots = [Slot("sampled", "int32", TOKENS), Slot("logprobs", "float32", REQUESTS * 4)]
    return OutputBuffers(device, slots, [1, 4, 16], **options)  # type: ignore[arg-type]


def produce(pool: wharf.Pool, stream: wharf.Stream, values: list[int]) -> wharf.Buffer:
    """A buffer of device memory with these numbers, as a model's results."""
    buffer = pool.alloc(len(values), "int32", stream=stream)
    buffer.copy_from(np.array(values, np.int32), stream=stream)
    return buffer


def test_each_fetch_has_the_bytes_of_its_step(device: wharf.Device) -> None:
    stream, outputs = wharf.Stream(device), outputs_of(device)
    pool = wharf.Pool(device, 8 << 20)
    last = None
    for number in range(20):
        source = produce(pool, stream, [number, number + 1, number + 2, -1])
        results = outputs.fetch(3, 2, stream, sources=[("sampled", source)])
        del source  # its memory is reused behind the copy
        assert results.counts == (3, 2)
        if last is not None:
            sampled = last["sampled"]
            assert (sampled.dtype, sampled.flags.writeable) == (np.int32, False)
            assert sampled.tolist() == [number - 1, number, number + 1]
            assert last.wait()["logprobs"].shape == (2, 4)
            del sampled
            last.close()
        last = results
    assert last is not None and last.wait().is_complete()
    assert outputs.slots == ["sampled", "logprobs"] and outputs.max == (16, 16)
    address = outputs.array("sampled", 4).ptr
    assert address == outputs.array("sampled", 16).ptr


def test_results_that_are_read_are_not_overwritten(device: wharf.Device) -> None:
    stream, outputs = wharf.Stream(device), outputs_of(device, ring_depth=2)
    pool = wharf.Pool(device, 8 << 20)
    first = outputs.fetch(1, 1, stream, sources=[("sampled", produce(pool, stream, [7]))])
    array = first["sampled"]
    part = array[:1]
    del array, first  # the array keeps the results, and they the ring slot
    gc.collect()
    second = outputs.fetch(1, 1, stream, sources=[("sampled", produce(pool, stream, [8]))])
    assert outputs.try_fetch(1, 1, stream) is None
    assert (part.tolist(), second["sampled"].tolist()) == ([7], [8])
    del part
    gc.collect()
    third = outputs.try_fetch(1, 1, stream)
    assert third is not None
    third.close()


def test_results_outlive_the_set_and_end_with_their_views(device: wharf.Device) -> None:
    stream, outputs = wharf.Stream(device), outputs_of(device)
    source = produce(wharf.Pool(device, 8 << 20), stream, [5])
    results = outputs.fetch(1, 1, stream, sources=[("sampled", source)])
    del outputs
    view = results.view("sampled")
    array = np.asarray(view)
    with pytest.raises(BufferError, match="alive"):
        results.close()
    with pytest.raises(ValueError, match="read-only|WRITEABLE"):
        array[0] = 1
    with pytest.raises(RuntimeError, match="the engine's"), results:
        raise RuntimeError("the engine's")  # not hidden by the array that is alive
    assert array.tolist() == [5]
    del array
    with results:
        pass
    with pytest.raises(BufferError, match="closed"):
        memoryview(view)
    with pytest.raises(wharf.ClosedError):
        results["sampled"]
    with pytest.raises(wharf.ClosedError):
        results.wait()


def test_results_that_do_not_come_are_an_error(late: wharf.Simulator) -> None:
    device = late.device()
    stream, outputs = wharf.Stream(device), outputs_of(device, timeout=0.0, ring_depth=1)
    results = outputs.fetch(1, 1, stream)
    with pytest.raises(wharf.StalledError):
        outputs.fetch(1, 1, stream)
    results.wait(600.0)
    assert results.is_complete()
    other = wharf.Stream(device)
    results.source_free_on(other)
    other.synchronize()


def test_what_does_not_fit_is_refused(device: wharf.Device) -> None:
    stream, outputs = wharf.Stream(device), outputs_of(device)
    pool = wharf.Pool(device, 8 << 20)
    with pytest.raises(wharf.StepTooLargeError):
        outputs.fetch(17, 1, stream)
    with pytest.raises(wharf.SlotError, match="none"):
        outputs.fetch(1, 1, stream, sources=[("none", produce(pool, stream, [1]))])
    with pytest.raises(wharf.SlotError, match="sampled"):
        outputs.fetch(4, 1, stream, sources=[("sampled", produce(pool, stream, [1, 2, 3]))])
    with pytest.raises(wharf.SlotError, match="17 tokens"):
        outputs.array("sampled", 17)
    for slot in (
        Slot("ids", "int32", TOKENS, pad=1),
        Slot("ids", "int32", TOKENS, forgotten="keep"),
        Slot("ids", "int32", TOKENS, kind="zero_copy"),
    ):
        with pytest.raises(ValueError, match="no pad"):
            OutputBuffers(device, [slot], [1])
    results = outputs.fetch(1, 1, stream)
    with pytest.raises(wharf.SlotError):
        results["none"]
    results.wait()
