"""Arrays of numba on softcuda as ``libcuda.so.1``: a process of its own, for its memory manager."""

from __future__ import annotations

import gc

import numpy as np
from numba import cuda

import wharf
import wharf.numba


def main() -> None:
    if cuda.cudadrv.driver.config.CUDA_MEMORY_MANAGER == "default":
        wharf.numba.use(max_bytes=64_000_000)
    values = np.arange(1000, dtype=np.int32)
    array = cuda.to_device(values)
    pool = wharf.numba.pool()
    assert pool.live == 1 and pool.stats()["limit"] <= 64_000_000
    start, size = pool.span
    assert start <= array.__cuda_array_interface__["data"][0] < start + size
    other = cuda.device_array_like(array)
    other.copy_to_device(array)
    assert (other.copy_to_host() == values).all()
    stream = cuda.stream()
    third = cuda.to_device(values, stream=stream)
    back = third.copy_to_host(stream=stream)
    stream.synchronize()
    assert (back == values).all()
    # What one stream may still write is not another's before it is done.
    one, two = cuda.stream(), cuda.stream()
    source, target = (cuda.pinned_array(1000, np.int32) for _ in range(2))
    source[:], target[:] = 1, 2
    fourth = cuda.device_array(1000, np.int32)
    address = fourth.device_ctypes_pointer.value
    fourth.copy_to_device(source, stream=one)
    del fourth
    fifth = cuda.device_array(1000, np.int32)
    if fifth.device_ctypes_pointer.value != address:
        raise AssertionError("memory that was not reused: nothing is tested")
    fifth.copy_to_device(target, stream=two)
    one.synchronize()
    assert (fifth.copy_to_host(stream=two) == 2).all()
    two.synchronize()
    # numba reads a buffer of wharf's, and wharf an array of numba's.
    device = pool.device
    buffer = wharf.Pool(device, 8 << 20).alloc((10, 100), "int32", stream=1)
    buffer.copy_from(array, stream=1)
    view = cuda.as_cuda_array(buffer)
    assert (view.shape, view.dtype) == ((10, 100), np.int32)
    assert (view.copy_to_host().ravel() == values).all()
    memory = cuda.current_context().get_memory_info()
    assert 0 < memory.free < memory.total
    try:
        cuda.device_array(1 << 40, np.uint8)
    except wharf.OutOfMemoryError as error:
        assert error.size == 1 << 40
    else:
        raise AssertionError("an array above the limit")
    del array, other, third, fifth
    gc.collect()
    assert pool.live == 0
    print("right")


main()
