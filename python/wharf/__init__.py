"""wharf for Python: memory pools and input staging for CUDA engines.

``Device``, ``Stream``, ``Pool``, ``InputBuffers`` and ``OutputBuffers`` are what an engine uses,
``Simulator`` what its tests use. ``wharf.cuda_core``, ``wharf.numba`` and ``wharf.torch`` put
wharf's pools behind the allocators of those libraries. The exceptions are in ``wharf.errors``.
"""

from wharf import errors
from wharf._wharf import (
    REQUESTS,
    TOKENS,
    Addresses,
    Buffer,
    Captures,
    Device,
    DeviceArray,
    InputBuffers,
    Length,
    OutputBuffers,
    Pool,
    Reader,
    Results,
    ResultView,
    Simulator,
    Slot,
    SlotView,
    Staged,
    Step,
    Stream,
    Violation,
    __version__,
    from_dlpack,
)
from wharf.errors import *  # noqa: F403

__all__ = [
    "REQUESTS",
    "TOKENS",
    "Addresses",
    "Buffer",
    "Captures",
    "Device",
    "DeviceArray",
    "InputBuffers",
    "Length",
    "OutputBuffers",
    "Pool",
    "Reader",
    "ResultView",
    "Results",
    "Simulator",
    "Slot",
    "SlotView",
    "Staged",
    "Step",
    "Stream",
    "Violation",
    "__version__",
    "errors",
    "from_dlpack",
    *errors.__all__,
]
