"""numba-cuda's memory manager on pools of wharf (an External Memory Management plugin).

Either set ``NUMBA_CUDA_MEMORY_MANAGER=wharf.numba`` before numba is imported, or::

    wharf.numba.use(max_bytes=1 << 30)

before numba has used the device. ``pool(ordinal)`` is the pool that device arrays come from: one for
each device, of at most ``max_bytes``, or of the environment variable ``WHARF_NUMBA_BYTES``, or of the
device's memory. Pinned and managed memory stays with numba. Needs the package ``numba-cuda``.

numba does not say which stream uses an array. So an array is allocated for the legacy default stream,
and a marker is put into that when the array goes: behind what every blocking stream has been given, as
``cuda.stream()`` makes them, and before what they are given next. Work on an external stream that is not
blocking, or on the per-thread default stream, must be done before its arrays are deleted.

Two things a pool cannot do that ``cuMemAlloc`` can: an array has no IPC handle, and
``cuMemGetAddressRange`` says the pool's memory, not the array's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

try:
    from cuda.bindings.driver import CUdeviceptr
    from numba import cuda
    from numba.cuda import HostOnlyCUDAMemoryManager, MemoryInfo, MemoryPointer
except ImportError as error:
    # Modules have other names than the packages that bring them.
    raise ImportError(f"wharf.numba needs the package numba-cuda: {error}") from error

import wharf

__all__ = ["MemoryManager", "pool", "use"]

#: The legacy default stream.
_LEGACY = 1

_max_bytes: int | None = None
_served: dict[int, tuple[wharf.Pool, wharf.Addresses]] = {}


def use(max_bytes: int | None = None) -> None:
    """Makes numba allocate from pools of wharf, of at most ``max_bytes`` a device.

    To be called before numba uses a device: contexts that exist keep their memory manager.
    """
    global _max_bytes
    _max_bytes = max_bytes
    cuda.set_memory_manager(MemoryManager)


def pool(ordinal: int = 0) -> wharf.Pool:
    """The pool that serves a device."""
    return _serve(ordinal)[0]


class MemoryManager(HostOnlyCUDAMemoryManager):
    """Device memory from a pool of wharf; pinned and managed memory as numba has it."""

    def initialize(self) -> None:
        """Makes the device's pool, when numba first uses the device."""
        self._pool, self._addresses = _serve(_ordinal(self.context.device))
        self._legacy = wharf.Stream(self._pool.device, _LEGACY)
        if not self.deallocations.memory_capacity:
            self.deallocations.memory_capacity = self.get_memory_info().total

    def memalloc(self, size: int) -> MemoryPointer:
        """Allocates device memory."""
        addresses, legacy = self._addresses, self._legacy
        try:
            address = addresses.allocate(size, stream=legacy)
        except wharf.OutOfMemoryError:
            # What numba holds back, as its own manager does.
            self.deallocations.clear()
            address = addresses.allocate(size, stream=legacy)

        def free() -> None:
            legacy.mark()
            addresses.deallocate(address, stream=legacy)

        return MemoryPointer(self.context, CUdeviceptr(address), size, finalizer=free)

    def get_memory_info(self) -> MemoryInfo:
        """Free and total bytes of the device, as the driver tells."""
        memory = self._pool.physical_memory
        if memory is None:
            raise NotImplementedError("the driver does not say how much memory is free")
        return MemoryInfo(free=memory[0], total=memory[1])

    def get_ipc_handle(self, memory: Any) -> Any:
        """Raises: a block of a pool cannot be shared with other processes."""
        raise NotImplementedError("memory of a wharf pool has no IPC handle")

    def reset(self) -> None:
        """Frees what numba holds back; arrays that are alive stay valid."""
        super().reset()

    @contextlib.contextmanager
    def defer_cleanup(self) -> Iterator[None]:
        """Defers numba's own deallocations; a pool frees without waiting for the device."""
        with super().defer_cleanup():
            yield

    @property
    def interface_version(self) -> int:
        """The version of the plugin interface."""
        return 1


def _ordinal(device: Any) -> int:
    # A context that other code has made has the driver's device, which is its number.
    return int(getattr(device, "id", device))


def _serve(ordinal: int) -> tuple[wharf.Pool, wharf.Addresses]:
    served = _served.get(ordinal)
    if served is None:
        device = wharf.Device(ordinal)
        limit = _max_bytes or int(os.environ.get("WHARF_NUMBA_BYTES", 0))
        made = wharf.Pool(device, limit or _memory_of(device), name=f"numba:{ordinal}")
        served = _served.setdefault(ordinal, (made, made.addresses()))
    return served


def _memory_of(device: wharf.Device) -> int:
    memory = wharf.Pool(device, 2 << 20).physical_memory
    return memory[1] if memory else 1 << 34


#: The name that ``NUMBA_CUDA_MEMORY_MANAGER`` looks for.
_numba_memory_manager = MemoryManager
