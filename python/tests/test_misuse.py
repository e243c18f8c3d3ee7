"""What a caller may get wrong: each is an exception that says so, and nothing has changed."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import wharf
from wharf import TOKENS, Slot


class Interface:
    """An array with any description."""

    def __init__(self, **entries: Any) -> None:
        self.__cuda_array_interface__ = entries


def described(buffer: wharf.Buffer, **changes: Any) -> Interface:
    entries = {"shape": (2, 2), "typestr": "<i4", "data": (buffer.ptr, False), "version": 3}
    return Interface(**{**entries, **changes})


@pytest.mark.parametrize(
    "source",
    [np.zeros(3), np.zeros(4, np.float32), np.zeros(4, np.uint32), np.zeros(4, ">i4"), np.zeros(2, "<i8")],
    ids=lambda source: str(source.dtype),
)
def test_elements_of_another_type_are_not_copied_as_bits(device: wharf.Device, source: Any) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer = pool.alloc(8, "int32", stream=stream)
    buffer.fill(7, stream=stream)
    with pytest.raises(TypeError, match="elements of type"):
        buffer.copy_from(source, stream=stream)
    assert buffer.to_numpy(stream=stream).tolist() == [7] * 8


def test_bytes_are_elements_of_any_type(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer = pool.alloc(2, "int32", stream=stream)
    buffer.copy_from((5).to_bytes(4, "little") * 2, stream=stream)
    buffer.copy_from((ctypes.c_int32 * 2)(5, 5), stream=stream)
    raw = pool.alloc(8, stream=stream)
    raw.copy_from(buffer, stream=stream)
    raw.copy_from(np.full(2, 5, np.int32), stream=stream)
    buffer.copy_from(raw, stream=stream)
    assert buffer.to_numpy(stream=stream).tolist() == [5, 5]
    bits = pool.alloc(2, "bfloat16", stream=stream)
    bits.copy_from(np.full(2, 0x3F80, np.uint16), stream=stream)
    assert bits.to_numpy(stream=stream).tolist() == [0x3F80] * 2


def test_buffers_of_another_type_are_no_sources_of_slots(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    slots = [Slot("ids", "int32", TOKENS)]
    floats, ints = (pool.alloc(4, dtype, stream=stream) for dtype in ("float32", "int32"))
    floats.fill(1, stream=stream)
    ints.fill(1, stream=stream)
    with pytest.raises(TypeError, match="float32"):
        pool.alloc(4, "int32", stream=stream).copy_from(floats, stream=stream)
    outputs = wharf.OutputBuffers(device, slots, buckets=[4])
    with pytest.raises(TypeError, match="float32"):
        outputs.fetch(4, 1, stream, sources=[("ids", floats)])
    with outputs.fetch(4, 1, stream, sources=[("ids", ints)]) as results:
        assert results["ids"].tolist() == [1] * 4
    inputs = wharf.InputBuffers(device, slots, buckets=[4])
    pinned = wharf.Pool(device, 8 << 20, "pinned").alloc(4, "float32", stream=stream)
    with inputs.begin(4, 1) as step, pytest.raises(TypeError, match="float32"):
        step.refer("ids", pinned)


@pytest.mark.parametrize("typestr", ["", "<", "\u00e94", "i4", ">i4", "<i4 ", "<i40"])
def test_a_typestr_that_is_none_is_no_panic(device: wharf.Device, typestr: str) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer, other = (pool.alloc(4, "int32", stream=stream) for _ in range(2))
    with pytest.raises(TypeError, match="element type"):
        buffer.copy_from(described(other, typestr=typestr), stream=stream)


def test_descriptions_that_lack_something_or_have_a_mask(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer, other = (pool.alloc(4, "int32", stream=stream) for _ in range(2))
    other.fill(3, stream=stream)
    for missing in ("shape", "typestr", "data"):
        array = described(other)
        del array.__cuda_array_interface__[missing]
        with pytest.raises(TypeError, match=missing):
            buffer.copy_from(array, stream=stream)
    with pytest.raises(ValueError, match="mask"):
        buffer.copy_from(described(other, mask=described(other)), stream=stream)
    buffer.copy_from(described(other, mask=None, strides=(8, 4)), stream=stream)
    assert buffer.to_numpy(stream=stream).tolist() == [3] * 4


def test_a_capsule_that_was_taken_says_so(device: wharf.Device) -> None:
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
    buffer = pool.alloc(4, "int32", stream=stream)

    class Again:
        def __init__(self) -> None:
            self.capsule = buffer.__dlpack__()

        def __dlpack__(self, **_: Any) -> Any:
            return self.capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return buffer.__dlpack_device__()

    again = Again()
    assert wharf.from_dlpack(again, stream=stream).shape == (4,)
    with pytest.raises(BufferError, match="another consumer"):
        wharf.from_dlpack(again, stream=stream)


def test_a_request_for_fortran_order_is_refused(device: wharf.Device) -> None:
    """Memory in C order is not handed out as if it were in the other."""

    class View(ctypes.Structure):
        # As Py_buffer in CPython's stable interface.
        _fields_ = [
            ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
            ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
        ]

    def ask(buffer: wharf.Buffer, flags: int) -> None:
        view = View()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(view), flags)
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))

    strides, c_order, fortran = 0x18, 0x20 | 0x18, 0x40 | 0x18
    stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20, "pinned")
    table, row = pool.alloc((2, 3), "int32", stream=stream), pool.alloc((1, 6), "int32", stream=stream)
    for flags in (0, strides, c_order):
        ask(table, flags)
    with pytest.raises(BufferError, match="C order"):
        ask(table, fortran)
    ask(row, fortran)  # in both orders
    table.fill(1, stream=stream)  # no view is left


@pytest.mark.parametrize("shape", [-1, 1 << 64, (1,) * 65])
def test_shapes_that_no_array_has_say_so(shape: Any) -> None:
    device = wharf.Simulator().device()
    with pytest.raises(ValueError, match="the shape"):
        wharf.Pool(device, 8 << 20).alloc(shape, "int32", stream=wharf.Stream(device))


def test_times_that_are_none_are_short(device: wharf.Device) -> None:
    pool = wharf.Pool(device, 8 << 20)
    for time in (float("nan"), -1.0, 1e300):
        with pytest.raises(ValueError, match=r"^(NaN|-1\.0|1e300) is no number of seconds"):
            pool.trim(time)


@pytest.mark.parametrize("kind", ["device", "pinned", "managed"])
def test_a_pool_that_no_machine_has_room_for_does_not_end_the_process(kind: Any) -> None:
    # In a process of its own: what is tested against is an abort.
    program = f"""
import wharf
device = wharf.Simulator().device()
for bits in (43, 44, 46, 50, 62, 63):
    try:
        wharf.Pool(device, 1 << bits, {kind!r})
    except wharf.ConfigurationError as error:
        assert "max_bytes" in str(error), error
    else:
        raise AssertionError(bits)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("module", "package", "hidden"),
    [("numba", "numba-cuda", "cuda.bindings.driver"), ("cuda_core", "cuda-core", "cuda.core")],
)
def test_a_module_names_the_package_that_it_lacks(module: str, package: str, hidden: str) -> None:
    program = f"""
import sys
sys.modules[{hidden!r}] = None
try:
    import wharf.{module}
except ImportError as error:
    assert "{package}" in str(error), error
else:
    raise AssertionError("imported")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_fork_is_told_to_go_and_leaves_the_parent_alone() -> None:
    program = """
import os, gc
import wharf
simulator = wharf.Simulator(schedule="late", check="all")
device = simulator.device()
stream, pool = wharf.Stream(device), wharf.Pool(device, 8 << 20)
inputs = wharf.InputBuffers(device, [wharf.Slot("ids", "int32", wharf.TOKENS)], buckets=[4])
buffer, step = pool.alloc(4, "int32", stream=stream), inputs.begin(4, 1)
child = os.fork()
if child == 0:
    step.write(ids=1)
    for use in (
        lambda: pool.alloc(1 << 20, stream=stream), lambda: buffer.fill(1, stream=stream),
        lambda: step.submit(stream), stream.synchronize, lambda: inputs.begin(1, 1),
    ):
        try:
            use()
        except wharf.DriverError as error:
            assert "forked" in str(error), error
        else:
            raise AssertionError("a call of the fork")
    del buffer, step, pool, inputs, stream
    gc.collect()
    raise SystemExit(0)
assert os.waitpid(child, 0)[1] == 0
step.write(ids=[1, 2, 3, 4])
buffer.copy_from(step.submit(stream)["ids"], stream=stream)
assert buffer.to_numpy(stream=stream).tolist() == [1, 2, 3, 4]
del buffer, step
assert simulator.violations == []
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
