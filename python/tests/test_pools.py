"""Pools and buffers: allocation, copies, reuse, views of the host."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import wharf

DTYPES = [
    "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64",
]
#: Types that NumPy lacks come as their bits.
BITS = {"bfloat16": np.uint16, "float8_e4m3fn": np.uint8, "float8_e5m2": np.uint8}


def test_what_was_copied_in_comes_out(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 64 << 20)
    for dtype in DTYPES:
        values = np.arange(12).astype(dtype).reshape(3, 4)
        buffer = pool.alloc(values.shape, values.dtype, stream=stream)
        assert (buffer.shape, buffer.dtype, buffer.nbytes) == ((3, 4), dtype, values.nbytes)
        buffer.copy_from(values, stream=stream)
        back = buffer.to_numpy(stream=stream)
        assert back.dtype == values.dtype
        assert (back == values).all()


def test_types_that_numpy_lacks_are_their_bits(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 64 << 20)
    for dtype, bits in BITS.items():
        buffer = pool.alloc(4, dtype, stream=stream)
        values = np.array([1, 2, 3, 250], bits)
        buffer.copy_from(values, stream=stream)
        back = buffer.to_numpy(stream=stream)
        assert (buffer.dtype, back.dtype, back.tolist()) == (dtype, bits, values.tolist())


def test_fills(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 64 << 20)
    for dtype, value in [("int32", -7), ("uint8", 255), ("float32", 0.5), ("float16", 1.5)]:
        buffer = pool.alloc(5, dtype, stream=stream)
        buffer.fill(value, stream=stream)
        assert buffer.to_numpy(stream=stream).tolist() == [value] * 5
    half = pool.alloc(2, "bfloat16", stream=stream)
    half.fill(1.0, stream=stream)
    assert half.to_numpy(stream=stream).tolist() == [0x3F80] * 2
    with pytest.raises(OverflowError):
        pool.alloc(2, "uint8", stream=stream).fill(256, stream=stream)
    # The driver has no fill of 8 different bytes.
    with pytest.raises(wharf.DriverError) as error:
        pool.alloc(2, "int64", stream=stream).fill(1, stream=stream)
    assert error.value.code == 801


def test_memory_is_the_streams_again_at_once(late: wharf.Simulator) -> None:
    device = late.device()
    one, other, pool = wharf.Stream(device), wharf.Stream(device), wharf.Pool(device, 64 << 20)
    first = pool.alloc(4096, stream=one)
    first.fill(1, stream=one)
    address = first.ptr
    del first
    # Another stream has other memory as long as the first one is not done.
    assert pool.alloc(4096, stream=other).ptr != address
    assert pool.alloc(4096, stream=one).ptr == address


def test_a_buffer_keeps_its_pool(device: wharf.Device) -> None:
    stream = wharf.Stream(device)
    buffer = wharf.Pool(device, 8 << 20).alloc(16, stream=stream)
    gc.collect()
    buffer.fill(3, stream=stream)
    assert buffer.to_numpy(stream=stream).tolist() == [3] * 16


def test_a_view_of_pinned_memory_waits_for_the_device(late: wharf.Simulator) -> None:
    device = late.device()
    stream = wharf.Stream(device)
    pinned, memory = wharf.Pool(device, 8 << 20, "pinned"), wharf.Pool(device, 8 << 20)
    host, there = pinned.alloc(8, "int32", stream=stream), memory.alloc(8, "int32", stream=stream)
    np.asarray(host)[:] = range(8)
    there.copy_from(host, stream=stream)
    np.asarray(host)[:] = -1  # waits for the copy, which was late
    assert there.to_numpy(stream=stream).tolist() == list(range(8))
    host.copy_from(there, stream=stream)
    assert np.asarray(host).tolist() == list(range(8))


def test_a_view_that_is_alive_keeps_the_device_away(device: wharf.Device) -> None:
    stream = wharf.Stream(device)
    pool = wharf.Pool(device, 8 << 20, "pinned")
    buffer, other = (pool.alloc((2, 4), "float32", stream=stream) for _ in range(2))
    view = np.asarray(buffer)
    assert (view.shape, view.dtype, view.flags.writeable) == ((2, 4), np.float32, True)
    again = memoryview(buffer)
    for use in (
        lambda: buffer.fill(1, stream=stream),
        lambda: buffer.copy_from(other, stream=stream),
        lambda: other.copy_from(buffer, stream=stream),
        buffer.close,
    ):
        with pytest.raises(BufferError, match="alive"):
            use()
    view[:] = 2
    del view
    with pytest.raises(BufferError):
        buffer.fill(1, stream=stream)
    again.release()
    other.copy_from(buffer, stream=stream)
    assert other.to_numpy(stream=stream).tolist() == [[2] * 4] * 2


def test_memory_of_the_device_has_no_view(device: wharf.Device) -> None:
    buffer = wharf.Pool(device, 8 << 20).alloc(4, stream=wharf.Stream(device))
    with pytest.raises(BufferError, match="device memory"):
        memoryview(buffer)
    managed = wharf.Pool(device, 8 << 20, "managed").alloc(4, stream=wharf.Stream(device))
    assert len(memoryview(managed)) == 4


def test_views_of_several_threads(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20, "pinned")
    buffer, errors = pool.alloc(64, stream=stream), []

    def look() -> None:
        try:
            for _ in range(100):
                memoryview(buffer).release()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    buffer.fill(1, stream=stream)


def test_the_limit_is_an_error_that_says_what_is_there(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 4 << 20)
    held = [pool.alloc(1 << 20, stream=stream) for _ in range(3)]
    with pytest.raises(wharf.OutOfMemoryError) as error:
        held.extend(pool.alloc(1 << 20, stream=stream) for _ in range(3))
    assert isinstance(error.value, MemoryError)
    assert (error.value.size, error.value.limit) == (1 << 20, 4 << 20)
    with pytest.raises(wharf.OutOfMemoryError):
        pool.alloc(1 << 40, stream=stream)
    # Nothing was lost.
    del held
    assert len([pool.alloc(1 << 20, stream=stream) for _ in range(3)]) == 3


def test_a_pool_says_what_is_alive(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20, name="results")
    buffer = pool.alloc(1000, stream=stream)
    assert (pool.live, pool.name, pool.kind, pool.device) == (1, "results", "device", device)
    assert pool.stats()["live"] >= 1000
    with pytest.raises(wharf.LeakError) as error:
        pool.check(timeout=0)
    assert (error.value.buffers, error.value.in_use) == (1, 0)
    buffer.close()
    with pytest.raises(wharf.ClosedError):
        buffer.fill(1, stream=stream)
    pool.check()
    assert pool.live == 0
    assert pool.stats()["reserved"] == 0


def test_allocation_by_address(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    addresses = pool.addresses()
    one, other = (addresses.allocate(100, stream=stream) for _ in range(2))
    assert one != other and len(addresses) == 2
    addresses.deallocate(one, stream=stream)
    for wrong in (one, other + 1, 0):
        with pytest.raises(ValueError, match="freed twice"):
            addresses.deallocate(wrong, stream=stream)
    assert addresses.allocate(0, stream=stream) != other
    # What is not freed goes with the object.
    del addresses
    assert pool.live == 0


def test_copies_refuse_what_does_not_fit(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer = pool.alloc(4, "int32", stream=stream)
    with pytest.raises(ValueError, match="20 bytes"):
        buffer.copy_from(np.zeros(5, np.int32), stream=stream)
    with pytest.raises(ValueError, match="contiguous"):
        buffer.copy_from(np.zeros((2, 4), np.int32)[:, ::2], stream=stream)
    with pytest.raises(TypeError):
        buffer.copy_from([1, 2], stream=stream)
    with pytest.raises(TypeError):
        buffer.copy_from(None, stream=stream)


@pytest.mark.parametrize("shape", [-1, (2, -1), "2", None, 1.5, (1 << 40, 1 << 40)])
def test_invalid_shapes(shape: object) -> None:
    device = wharf.Simulator().device()
    pool = wharf.Pool(device, 8 << 20)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        pool.alloc(shape, "int32", stream=wharf.Stream(device))  # type: ignore[arg-type]


def test_invalid_options() -> None:
    device = wharf.Simulator().device()
    with pytest.raises(ValueError, match="kind"):
        wharf.Pool(device, 8 << 20, "texture")  # type: ignore[arg-type]
    with pytest.raises(wharf.ConfigurationError):
        wharf.Pool(device, 1)
    with pytest.raises(ValueError, match="seconds"):
        wharf.Pool(device, 8 << 20, wait=-1.0)
    pool, stream = wharf.Pool(device, 8 << 20), wharf.Stream(device)
    with pytest.raises(TypeError, match="complex"):
        pool.alloc(1, "complex64", stream=stream)
    for wrong in (None, "stream", 1.5, object()):
        with pytest.raises(TypeError):
            pool.alloc(1, stream=wrong)  # type: ignore[arg-type]


def test_an_empty_array(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    empty = pool.alloc((3, 0), "int32", stream=stream)
    assert (len(empty), empty.nbytes, empty.__cuda_array_interface__["data"][0]) == (3, 0, 0)
    assert empty.to_numpy(stream=stream).shape == (3, 0)
    empty.copy_from(np.zeros(0, np.int32), stream=stream)


def test_an_error_of_the_driver_has_its_call_and_code() -> None:
    simulator = wharf.Simulator()
    device = simulator.device()
    simulator.fail("cuStreamCreate", 1, 2)
    with pytest.raises(wharf.OutOfMemoryError, match="cuStreamCreate"):
        wharf.Stream(device)
    simulator.fail("cuStreamCreate", 1, 999)
    with pytest.raises(wharf.DriverError) as error:
        wharf.Stream(device)
    assert (error.value.call, error.value.code) == ("cuStreamCreate", 999)
    assert wharf.Stream(device).query()


def test_buffers_can_be_referred_to_weakly(device: wharf.Device) -> None:
    buffer = wharf.Pool(device, 8 << 20).alloc(4, stream=wharf.Stream(device))
    reference = weakref.ref(buffer)
    del buffer
    assert reference() is None
