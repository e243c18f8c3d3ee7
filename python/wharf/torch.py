"""PyTorch's CUDA allocator on a pool of wharf.

::

    wharf.torch.use(max_bytes=8 << 30)   # before PyTorch has allocated on a device

What it needs: PyTorch built for CUDA (2.0 or later), a device, and that nothing was allocated on any
device before: PyTorch cannot change its allocator later. From then on every tensor on a device that
has a pool comes from it, in the order of the streams that PyTorch passes. PyTorch's statistics
(``torch.cuda.memory_allocated`` and others), its memory fraction and its graph pools belong to its own
allocator and are not there; ``pool(ordinal).stats()`` is.

PyTorch does not look at a failed allocation: the tensor's address is null, and kernels that use it
fail. ``last_error()`` says why.

Not run on a GPU yet. The functions that PyTorch calls are tested without it.
"""

from __future__ import annotations

from typing import Any

import wharf
from wharf import _wharf

__all__ = ["allocator", "last_error", "library", "pool", "serve", "stop", "use"]

#: The names of the functions that PyTorch calls.
MALLOC = "wharf_torch_malloc"
FREE = "wharf_torch_free"

_pools: dict[int, wharf.Pool] = {}


def use(max_bytes: int, devices: tuple[int, ...] = (0,)) -> None:
    """Makes PyTorch allocate from pools of at most ``max_bytes`` on each of ``devices``.

    Raises ``RuntimeError`` where PyTorch has no CUDA, or has allocated already.
    """
    memory, served = _memory(), []
    try:
        for ordinal in devices:
            if ordinal not in _pools:
                serve(wharf.Pool(wharf.Device(ordinal), max_bytes, name=f"torch:{ordinal}"))
                served.append(ordinal)
        memory.change_current_allocator(allocator())
    except BaseException:
        for ordinal in served:
            stop(ordinal)
        raise


def allocator() -> Any:
    """PyTorch's object for the allocator, for ``torch.cuda.MemPool`` and others."""
    return _memory().CUDAPluggableAllocator(library(), MALLOC, FREE)


def serve(pool: wharf.Pool) -> None:
    """Serves allocations on the pool's device from it. A device that has a pool keeps it."""
    ordinal = _wharf._torch_serve(pool)
    _pools.setdefault(ordinal, pool)


def pool(ordinal: int = 0) -> wharf.Pool:
    """The pool that serves a device. Raises ``KeyError`` where none does."""
    return _pools[ordinal]


def stop(ordinal: int) -> None:
    """Serves a device no more, and frees what is allocated there: not while tensors live."""
    _pools.pop(ordinal, None)
    _wharf._torch_stop(ordinal)


def library() -> str:
    """The path of the shared object with the functions that PyTorch calls."""
    path = _wharf.__file__
    if path is None:
        raise RuntimeError("the extension module has no file")
    return path


def last_error() -> str | None:
    """Why the last allocation that failed did so."""
    return _wharf._torch_last_error()


def _memory() -> Any:
    import torch

    if not torch.backends.cuda.is_built():
        raise RuntimeError("this PyTorch was built without CUDA: wharf.torch needs one with it")
    return torch.cuda.memory
