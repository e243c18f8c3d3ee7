"""Other libraries of CUDA's Python: they need a driver, which softcuda is as ``libcuda.so.1``."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wharf
import wharf.torch

HERE = Path(__file__).parent


def schedules() -> list[str]:
    return ["async", "eager", "late", *(f"random:{seed}" for seed in range(50))]


def test_an_engine_on_cuda_core_under_every_schedule(system: wharf.Device) -> None:
    pytest.importorskip("cuda.core")
    command = [sys.executable, str(HERE / "engine.py"), *schedules()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # A violation or a leak is a line of softcuda's, an error a traceback.
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["schedule"] for line in found) == sorted(schedules())
    assert all((line["active"], line["errors"]) == (0, 0) for line in found), found


def test_the_module_is_not_taken_for_the_driver() -> None:
    program = (
        "import ctypes, wharf\n"
        "try: library = ctypes.CDLL('libcuda.so.1')\n"
        "except OSError: raise SystemExit\n"
        "assert not hasattr(library, 'PyInit__wharf')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_memory_of_cuda_core(system: wharf.Device) -> None:
    core = pytest.importorskip("cuda.core")
    import wharf.cuda_core

    theirs = core.Device(0)
    theirs.set_current()
    one, other = theirs.create_stream(), theirs.create_stream()
    pool = wharf.Pool(system, 64 << 20)
    resource = wharf.cuda_core.MemoryResource(pool)
    a, b = (resource.allocate(1024, stream=one) for _ in range(2))
    a.fill(7, stream=one)
    b.copy_from(a, stream=one)
    copy = pool.alloc(1024, stream=one)
    copy.copy_from(b, stream=one)  # DLPack
    assert copy.to_numpy(stream=one).tolist() == [7] * 1024
    address = int(a.handle)
    a.close(stream=one)
    # At once for its own stream; another waits for it, or has other memory.
    again = resource.allocate(1024, stream=one)
    assert int(again.handle) == address
    again.close(stream=one)
    assert int(resource.allocate(1024, stream=other).handle) != address
    theirs.memory_resource = resource
    assert theirs.allocate(512, stream=one).memory_resource is resource
    assert (resource.device_id, resource.is_device_accessible) == (0, True)
    assert (resource.is_host_accessible, resource.is_managed) == (False, False)
    with pytest.raises(wharf.OutOfMemoryError):
        resource.allocate(1 << 40, stream=one)
    theirs.memory_resource = core.DeviceMemoryResource(theirs)


def test_streams_of_other_libraries(system: wharf.Device) -> None:
    core = pytest.importorskip("cuda.core")
    theirs = core.Device(0)
    theirs.set_current()
    stream, pool = theirs.create_stream(), wharf.Pool(system, 8 << 20)
    handle = int(stream.handle)

    class Torch:
        cuda_stream = handle

    ours = wharf.Stream(system, stream)
    assert (ours.handle, ours.__cuda_stream__()) == (handle, (0, handle))
    buffers = []
    for same in (ours, stream, handle, Torch()):
        buffer = pool.alloc(512, stream=same)
        buffers.append(buffer.ptr)
        buffer.fill(1, stream=same)
        del buffer
    # One stream, however it is passed: its memory comes back at once.
    assert len(set(buffers)) == 1
    own = wharf.Stream(system)
    assert int(theirs.create_stream(own).handle) == own.handle
    assert system.forget_stream(handle)
    with pytest.raises(wharf.StreamError, match="forgotten"):
        ours.synchronize()
    for default in (0, 1, 2):
        pool.alloc(512, stream=default).fill(1, stream=default)
    with pytest.raises((TypeError, OverflowError)):
        pool.alloc(512, stream=-1)


def test_tensors_of_cuda_core(system: wharf.Device) -> None:
    core = pytest.importorskip("cuda.core")
    theirs = core.Device(0)
    theirs.set_current()
    stream = theirs.create_stream()
    buffer = theirs.allocate(256, stream=stream)
    buffer.fill(5, stream=stream)
    array = wharf.from_dlpack(buffer, stream=stream)
    assert (array.shape, array.ptr) == ((256,), int(buffer.handle))
    ours = wharf.Pool(system, 8 << 20).alloc(256, stream=stream)
    ours.copy_from(array, stream=stream)
    assert ours.to_numpy(stream=stream).tolist() == [5] * 256
    view = core.utils.StridedMemoryView.from_dlpack(ours, stream_ptr=int(stream.handle))
    assert (view.ptr, tuple(view.shape), view.device_id) == (ours.ptr, (256,), 0)
    view = core.utils.StridedMemoryView.from_cuda_array_interface(ours, int(stream.handle))
    assert (view.ptr, tuple(view.shape)) == (ours.ptr, (256,))


def test_numba_in_a_process_of_its_own(system: wharf.Device) -> None:
    pytest.importorskip("numba.cuda")
    for settings in ({}, {"NUMBA_CUDA_MEMORY_MANAGER": "wharf.numba", "WHARF_NUMBA_BYTES": "64000000"}):
        environment = os.environ | {"SOFTCUDA_CHECK": "race,use-after-free,bounds"} | settings
        command = [sys.executable, str(HERE / "numba_arrays.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout == "right\n"


class Torch:
    """What PyTorch does with the library that it is given."""

    def __init__(self) -> None:
        library = ctypes.CDLL(wharf.torch.library())
        self.malloc = library[wharf.torch.MALLOC]
        self.malloc.restype = ctypes.c_void_p
        self.malloc.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
        self.free = library[wharf.torch.FREE]
        self.free.restype = None
        self.free.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]


def test_the_functions_for_pytorch() -> None:
    simulator = wharf.Simulator(schedule="late", check="all", devices=2)
    device = simulator.device(1)
    pool, stream, torch = wharf.Pool(device, 8 << 20), wharf.Stream(device), Torch()
    try:
        assert torch.malloc(1024, 1, stream.handle) is None
        assert "no pool serves device 1" in (wharf.torch.last_error() or "")
        wharf.torch.serve(pool)
        assert wharf.torch.pool(1) is pool
        one, other = (torch.malloc(1024, 1, stream.handle) for _ in range(2))
        assert one and other and one != other and pool.live == 2
        torch.free(one, 1024, 1, stream.handle)
        assert torch.malloc(1024, 1, stream.handle) == one
        assert torch.malloc(512, 1, None)  # the default stream
        assert torch.malloc(0, 1, stream.handle) is None
        for size in (-1, 1 << 40):
            assert torch.malloc(size, 1, stream.handle) is None
        assert "largest possible block" in (wharf.torch.last_error() or "")
        torch.free(None, 0, 1, stream.handle)
        torch.free(one + 1, 1024, 1, stream.handle)
        assert "freed twice" in (wharf.torch.last_error() or "")
        assert pool.live == 3
    finally:
        wharf.torch.stop(1)
    assert pool.live == 0
    assert simulator.violations == []
    with pytest.raises(KeyError):
        wharf.torch.pool(1)


def test_use_says_what_pytorch_lacks(system: wharf.Device) -> None:
    try:
        import torch
    except ImportError:
        with pytest.raises(ImportError, match="torch"):
            wharf.torch.use(8 << 20)
    else:
        if torch.backends.cuda.is_built():
            pytest.skip("this PyTorch has CUDA, and softcuda has no kernels")
        with pytest.raises(RuntimeError, match="without CUDA"):
            wharf.torch.use(8 << 20)
    with pytest.raises(KeyError):
        wharf.torch.pool(0)


def test_numpy_reads_pinned_memory_by_dlpack() -> None:
    device = wharf.Simulator(schedule="late", check="all").device()
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20, "pinned")
    buffer = pool.alloc((2, 3), "float32", stream=stream)
    buffer.fill(1.5, stream=stream)
    view = np.from_dlpack(buffer)
    assert view.tolist() == [[1.5] * 3] * 2
    with pytest.raises(BufferError, match="alive"):
        buffer.fill(2, stream=stream)
    del view
    buffer.fill(2, stream=stream)
    assert buffer.__dlpack_device__() == (3, 0)
    # A capsule that nothing takes gives its tensor back, in both versions of the protocol.
    for version in (None, (0, 8), (1, 0), (1, 5)):
        capsule = buffer.__dlpack__(max_version=version)
        assert ("versioned" in repr(capsule)) == (version is not None and version[0] >= 1)
        del capsule
        buffer.fill(3, stream=stream)


def test_a_tensor_keeps_the_memory_and_orders_streams() -> None:
    simulator = wharf.Simulator(schedule="late", check="all")
    device = simulator.device()
    one, other, pool = wharf.Stream(device), wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer = pool.alloc(1024, "int32", stream=one)
    third = wharf.Stream(device)
    third.wait(one)
    buffer.fill(9, stream=third)  # the last one to use it, not the first, is waited for
    assert buffer.__cuda_array_interface__["stream"] == third.handle
    array = wharf.from_dlpack(buffer, stream=other)
    assert array.ptr == buffer.ptr
    buffer.close()
    assert pool.live == 1  # the tensor's
    copy = pool.alloc(1024, "int32", stream=other)
    copy.copy_from(array, stream=other)  # behind the fill on the other stream
    address = array.ptr
    del array
    # The consumer's stream may still read: another has other memory.
    assert pool.alloc(1024, "int32", stream=one).ptr != address
    assert copy.to_numpy(stream=other).tolist() == [9] * 1024
    assert simulator.violations == []


def test_exports_that_cannot_be() -> None:
    device = wharf.Simulator().device()
    stream = wharf.Stream(device)
    buffer = wharf.Pool(device, 8 << 20).alloc(4, stream=stream)
    for arguments, error in (
        ({"stream": 0}, ValueError),
        ({"copy": True}, BufferError),
        ({"dl_device": (1, 0)}, BufferError),
        ({"stream": "1"}, TypeError),
    ):
        with pytest.raises(error):
            buffer.__dlpack__(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        wharf.from_dlpack(np.zeros(3))
    with pytest.raises(TypeError):
        wharf.from_dlpack(object())

    class Strided:
        __cuda_array_interface__ = {
            "shape": (2, 2), "typestr": "<f4", "data": (buffer.ptr, False), "strides": (4, 8), "version": 3
        }

    with pytest.raises(ValueError, match="contiguous"):
        buffer.copy_from(Strided(), stream=stream)
