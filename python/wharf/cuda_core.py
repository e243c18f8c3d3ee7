"""``cuda.core``'s memory resource on a pool of wharf.

::

    pool = wharf.Pool(wharf.Device(0), max_bytes=1 << 30)
    device = cuda.core.Device(0)
    device.memory_resource = wharf.cuda_core.MemoryResource(pool)
    buffer = device.allocate(1024, stream=stream)

A buffer is freed in the order of the stream that it is closed on. Streams of ``cuda.core`` are
passed to wharf as they are. Needs the package ``cuda-core``.
"""

from __future__ import annotations

from typing import Any

try:
    from cuda.core import Buffer, MemoryResource as _MemoryResource
except ImportError as error:
    # The module has another name than the package that brings it.
    raise ImportError(f"wharf.cuda_core needs the package cuda-core: {error}") from error

from wharf import Pool

__all__ = ["MemoryResource"]


class MemoryResource(_MemoryResource):
    """Allocates buffers of ``cuda.core`` from a pool.

    The pool's device is the buffers'. A buffer that is not closed when this ends is freed then.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._addresses = pool.addresses()

    @property
    def pool(self) -> Pool:
        """The pool that buffers come from."""
        return self._pool

    def allocate(self, size: int, *, stream: Any) -> Buffer:
        """Allocates ``size`` bytes for use on ``stream`` first."""
        address = self._addresses.allocate(size, stream=stream)
        try:
            return Buffer.from_handle(address, size, mr=self, stream=stream)
        except BaseException:
            self._addresses.deallocate(address, stream=stream)
            raise

    def deallocate(self, ptr: Any, size: int, *, stream: Any) -> None:
        """Frees a buffer when ``stream`` is past what it was given."""
        self._addresses.deallocate(int(ptr), stream=stream)

    @property
    def is_device_accessible(self) -> bool:
        """Whether the device reaches the memory: always."""
        return True

    @property
    def is_host_accessible(self) -> bool:
        """Whether the host reaches the memory."""
        return self._pool.kind != "device"

    @property
    def is_managed(self) -> bool:
        """Whether the memory is managed."""
        return self._pool.kind == "managed"

    @property
    def device_id(self) -> int:
        """The device's number."""
        return self._pool.device.ordinal
