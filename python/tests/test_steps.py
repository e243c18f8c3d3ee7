"""Staging: slots, views, steps, readers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import wharf
from wharf import REQUESTS, TOKENS, InputBuffers, Slot


def inputs_of(device: wharf.Device, **options: object) -> InputBuffers:
    slots = [
        Slot("ids", "int32", TOKENS),
        Slot("mapping", "int64", TOKENS, pad=-1),
        Slot("tables", np.int32, REQUESTS * 4, pad="last"),
        Slot("temperature", "float32", REQUESTS),
    ]
    return InputBuffers(device, slots, [1, 4, 16], **options)  # type: ignore[arg-type]


def test_each_step_has_its_own_bytes(device: wharf.Device) -> None:
    stream, inputs = wharf.Stream(device), inputs_of(device)
    pool, addresses = wharf.Pool(device, 8 << 20), set()
    out = [pool.alloc((4,), "int32", stream=stream) for _ in range(20)]
    maps = [pool.alloc((4,), "int64", stream=stream) for _ in range(20)]
    tables = [pool.alloc((4, 4), "int32", stream=stream) for _ in range(20)]
    for number in range(20):
        with inputs.begin(3, 2) as step:
            assert (step.tokens, step.requests, step.padded) == (3, 2, (4, 4))
            step["ids"][:] = [number, number + 1, number + 2]
            step["mapping"] = np.arange(3) + number
            step["tables"] = [[number] * 4, [number + 1] * 4]
            step["temperature"] = 0.5
            staged = step.submit(stream)
        addresses.add(staged.address("ids"))
        out[number].copy_from(staged["ids"], stream=stream)
        maps[number].copy_from(staged["mapping"], stream=stream)
        tables[number].copy_from(staged["tables"], stream=stream)
    for number in range(20):
        ids = out[number].to_numpy(stream=stream).tolist()
        assert ids == [number, number + 1, number + 2, 0]
        mapping = maps[number].to_numpy(stream=stream).tolist()
        assert mapping == [number, number + 1, number + 2, -1]
        rows = tables[number].to_numpy(stream=stream)[:, 0].tolist()
        assert rows == [number, number + 1, number + 1, number + 1]
    assert len(addresses) == 1
    inputs.wait()
    assert staged.is_complete()


def test_a_view_that_is_alive_stops_the_submit(device: wharf.Device) -> None:
    stream, inputs = wharf.Stream(device), inputs_of(device)
    step = inputs.begin(4, 4)
    view = step["ids"]
    assert (view.dtype, view.shape, view.flags.writeable) == (np.int32, (4,), True)
    assert step["tables"].shape == (4, 4)
    part = view[1:3]  # keeps the memory as the whole does
    del view
    step.write(mapping=np.zeros(4, np.int64), tables=0, temperature=1.0)
    for end in (lambda: step.submit(stream), step.cancel):
        with pytest.raises(BufferError, match="alive"):
            end()
    part[:] = 7
    del part
    # The step goes on after the error.
    step["ids"][0] = 1
    staged = step.submit(stream)
    buffer = wharf.Pool(device, 8 << 20).alloc(4, "int32", stream=stream)
    buffer.copy_from(staged["ids"], stream=stream)
    assert buffer.to_numpy(stream=stream)[:3].tolist() == [1, 7, 7]


def test_a_step_is_over_after_its_submit(device: wharf.Device) -> None:
    stream, inputs = wharf.Stream(device), inputs_of(device)
    step = inputs.begin(1, 1)
    slot = step.view("ids")
    step.write(ids=1, mapping=1, tables=1, temperature=1)
    step.submit(stream)
    for use in (
        lambda: step["ids"],
        lambda: step.__setitem__("ids", 1),
        lambda: step.submit(stream),
        lambda: step.pass_address("ids", 1),
        step.cancel,
    ):
        with pytest.raises(wharf.ClosedError):
            use()
    with pytest.raises(BufferError, match="submitted"):
        memoryview(slot)


def test_a_step_that_is_dropped_has_not_happened(late: wharf.Simulator) -> None:
    inputs = inputs_of(late.device(), ring_depth=1)
    for _ in range(3):
        with inputs.begin(1, 1):
            assert inputs.try_begin(1, 1) is None
    with pytest.raises(RuntimeError, match="the engine's"), inputs.begin(1, 1):
        raise RuntimeError("the engine's")
    # Nor is the engine's error hidden by an array that is alive.
    with pytest.raises(RuntimeError, match="the engine's"), inputs.begin(1, 1) as step:
        view = step["ids"]
        raise RuntimeError("the engine's")
    del view, step
    step = inputs.begin(1, 1)
    view = step["ids"]
    del step
    # The array keeps the step.
    assert inputs.try_begin(1, 1) is None
    del view
    assert inputs.try_begin(1, 1) is not None
    assert late.calls("cuGraphLaunch") == 0


def test_an_array_of_another_type_is_converted_or_refused(device: wharf.Device) -> None:
    stream, inputs = wharf.Stream(device), inputs_of(device)
    with inputs.begin(3, 1) as step:
        for values in ([1, 2, 3], np.arange(1, 4), np.arange(1, 4, dtype=np.int16),
                       np.arange(1, 7, dtype=np.int32)[::2], range(3), 5):
            step["ids"] = values
            assert step["ids"].tolist() == np.broadcast_to(values, 3).tolist()
        for wrong, error in (([1.5, 2, 3], TypeError), (np.zeros(4, np.int32), ValueError),
                             ("abc", (TypeError, ValueError)), (None, TypeError)):
            with pytest.raises(error):
                step["ids"] = wrong
        with pytest.raises(wharf.SlotError, match="there are ids") as unknown:
            step["lens"] = 1
        assert unknown.value.slot == "lens"


def test_a_forgotten_slot_is_an_error_that_names_it(device: wharf.Device) -> None:
    stream, inputs = wharf.Stream(device), inputs_of(device)
    with inputs.begin(1, 1) as step:
        step.write(ids=1, mapping=1, tables=1)
        with pytest.raises(wharf.SlotError, match="temperature") as error:
            step.submit(stream)
    assert error.value.slot == "temperature"
    kept = InputBuffers(device, [Slot("a", "int32", 1), Slot("b", "int32", 1, forgotten="keep")], [1])
    out = wharf.Pool(device, 8 << 20).alloc(1, "int32", stream=stream)
    for number in range(3):
        with kept.begin(1, 1) as step:
            step["a"] = number
            if number == 0:
                step["b"] = 40
            staged = step.submit(stream)
        out.copy_from(staged["b"], stream=stream)
        assert out.to_numpy(stream=stream).tolist() == [40]


def test_limits(device: wharf.Device) -> None:
    inputs = inputs_of(device, timeout=0.0, ring_depth=1)
    assert (inputs.buckets, inputs.max) == ([(1, 1), (4, 4), (16, 16)], (16, 16))
    with pytest.raises(wharf.StepTooLargeError, match="17 tokens"):
        inputs.begin(17, 1)
    held = inputs.begin(1, 1)
    with pytest.raises(wharf.StalledError, match="submit or drop"):
        inputs.begin(1, 1)
    held.cancel()
    inputs.begin(1, 1).cancel()


def test_reads_on_another_stream(device: wharf.Device) -> None:
    copies, model = wharf.Stream(device), wharf.Stream(device)
    inputs, pool = inputs_of(device), wharf.Pool(device, 8 << 20)
    out = [pool.alloc(1, "int32", stream=model) for _ in range(12)]
    for number, buffer in enumerate(out):
        with inputs.begin(1, 1) as step:
            step.write(ids=number, mapping=0, tables=0, temperature=0)
            staged = step.submit(copies)
        if number % 2:
            with staged.reader(model):
                buffer.copy_from(staged["ids"], stream=model)
        else:
            staged.wait_on(model)
            buffer.copy_from(staged["ids"], stream=model)
            staged.consumed_by(model)
    assert [int(buffer.to_numpy(stream=model)[0]) for buffer in out] == list(range(12))


def test_a_reader_that_is_open_stops_the_next_step(device: wharf.Device) -> None:
    copies, model, inputs = wharf.Stream(device), wharf.Stream(device), inputs_of(device)

    def stage() -> wharf.Staged:
        step = inputs.begin(1, 1)
        step.write(ids=1, mapping=0, tables=0, temperature=0)
        return step.submit(copies)

    first = stage()
    reader = first.reader(model)
    with pytest.raises(wharf.ReaderOpenError):
        stage()
    reader.end()
    reader.end()
    stage()
    with pytest.raises(wharf.SupersededError):
        first.reader(model)


def test_dynamic_and_referred_slots(device: wharf.Device) -> None:
    stream = wharf.Stream(device)
    slots = [Slot("embeddings", "float32", TOKENS * 2), Slot("where", "uint8", kind="dynamic")]
    inputs = InputBuffers(device, slots, [4])
    pinned = wharf.Pool(device, 8 << 20, "pinned").alloc((4, 2), "float32", stream=stream)
    np.asarray(pinned)[:] = 0.25
    step = inputs.begin(4, 1)
    step.refer("embeddings", pinned)
    step.pass_address("where", 1234)
    with pytest.raises(BufferError):
        memoryview(pinned)  # until the step is submitted
    staged = step.submit(stream)
    assert staged.address("where") == 1234
    out = wharf.Pool(device, 8 << 20).alloc((4, 2), "float32", stream=stream)
    out.copy_from(staged["embeddings"], stream=stream)
    np.asarray(pinned)[:] = -1  # waits for the copy
    assert (out.to_numpy(stream=stream) == 0.25).all()
    with inputs.begin(4, 1) as step:
        with pytest.raises(ValueError, match="pass_address"):
            step["where"]
        with pytest.raises(wharf.SlotError):
            step.pass_address("embeddings", 1)


def test_invalid_sets() -> None:
    device = wharf.Simulator().device()
    ids = Slot("ids", "int32", TOKENS)
    for slots, buckets, options in [
        ([], [1], {}),
        ([ids, ids], [1], {}),
        ([ids], [0], {}),
        ([ids], [1], {"ring_depth": 0}),
        ([ids], [1], {"layout": "dense"}),
        ([ids], [1], {"forgotten": "never"}),
        ([ids], [1], {"timeout": float("nan")}),
        ([Slot("ids", "int32", TOKENS * (1 << 62))], [16], {}),
    ]:
        with pytest.raises((wharf.ConfigurationError, ValueError)):
            InputBuffers(device, slots, buckets, **options)
    for wrong in (lambda: Slot("a", "int32"), lambda: Slot("a", "int32", TOKENS, kind="b"),
                  lambda: Slot("a", "uint8", TOKENS, pad=256), lambda: Slot("a", "x", TOKENS),
                  lambda: Slot("a", "int32", TOKENS, pad="first"), lambda: TOKENS * -1):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            wrong()


def test_lengths() -> None:
    assert repr(2 * TOKENS * 3 + 1) == "TOKENS * 6 + 1"
    assert TOKENS + 1 == 1 + TOKENS
    assert TOKENS * 2 != REQUESTS * 2


def test_steps_of_several_threads(device: wharf.Device) -> None:
    inputs, errors = inputs_of(device, ring_depth=8), []
    pool = wharf.Pool(device, 8 << 20)
    stream = wharf.Stream(device)

    def stage(number: int) -> None:
        try:
            for turn in range(25):
                with inputs.begin(2, 1) as step:
                    step.write(ids=number * 100 + turn, mapping=0, tables=0, temperature=0)
                    step.submit(stream)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=stage, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    last = pool.alloc(4, "int32", stream=stream)
    last.copy_from(inputs.array("ids", 2), stream=stream)
    assert last.to_numpy(stream=stream)[0] % 100 == 24


def test_a_wait_lets_other_threads_run(device: wharf.Device) -> None:
    inputs, began, outcome = inputs_of(device, ring_depth=1, timeout=600.0), threading.Event(), []
    held = inputs.begin(1, 1)

    def wait() -> None:
        began.set()
        outcome.append(inputs.begin(1, 1))

    thread = threading.Thread(target=wait)
    thread.start()
    began.wait()
    # With the GIL held by the thread that waits, nothing here would ever run.
    for _ in range(100_000):
        if inputs.try_begin(1, 1) is not None:
            raise AssertionError("a ring slot that is held was given away")
    held.cancel()
    thread.join()
    assert len(outcome) == 1


def test_the_set_outlives_its_steps(machine: wharf.Simulator) -> None:
    device = machine.device()
    stream = wharf.Stream(device)
    step = inputs_of(device).begin(1, 1)
    step.write(ids=1, mapping=0, tables=0, temperature=0)
    staged = step.submit(stream)
    del step
    assert staged.padded == (1, 1)
    stream.synchronize()
