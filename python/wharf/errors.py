"""The exceptions of wharf, by what a caller can do about them.

::

    WharfError
    +-- ClosedError             used after its end                        also a ValueError
    +-- ConfigurationError      invalid options                           also a ValueError
    +-- DriverNotFoundError     no driver, or no device                   also an OSError
    +-- DriverError             the driver refused                        also a RuntimeError
    +-- LeakError               something is alive at the end
    +-- OutOfMemoryError        free something, or raise a limit          also a MemoryError
    +-- StreamError             a stream that cannot be used here         also a ValueError
    +-- WaitTimeoutError        the device was not done in time           also a TimeoutError
    +-- StepError               a step could not be begun or submitted
        +-- ReaderOpenError     end the reader of the last step first
        +-- SlotError           a slot was not written, or used wrongly   also a ValueError
        +-- StalledError        no ring slot became free                  also a TimeoutError
        +-- StepTooLargeError   above the limits of the set               also a ValueError
        +-- SupersededError     a later step has overwritten the inputs

A view of the host that is alive where it must not be is Python's own ``BufferError``. A call that
raises has changed nothing, unless its documentation says otherwise.
"""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "ConfigurationError",
    "DriverError",
    "DriverNotFoundError",
    "LeakError",
    "OutOfMemoryError",
    "ReaderOpenError",
    "SlotError",
    "StalledError",
    "StepError",
    "StepTooLargeError",
    "StreamError",
    "SupersededError",
    "WaitTimeoutError",
    "WharfError",
]


class WharfError(Exception):
    """The base of all exceptions of wharf."""


class ClosedError(WharfError, ValueError):
    """An object was used after its end."""


class ConfigurationError(WharfError, ValueError):
    """The options of a pool, a set of inputs or a simulator are invalid."""


class DriverNotFoundError(WharfError, OSError):
    """No CUDA driver can be loaded, or it has no device."""


class DriverError(WharfError, RuntimeError):
    """A call of the driver failed.

    ``call`` is the entry point, ``code`` its ``CUresult`` where the driver returned one.
    """

    def __init__(self, message: str, call: str | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.call = call
        self.code = code


class LeakError(WharfError):
    """Buffers are alive, or the device still uses memory, where a pool should be empty.

    ``buffers`` is how many are alive, ``in_use`` the bytes of dropped ones in use.
    """

    def __init__(self, message: str, buffers: int = 0, in_use: int = 0) -> None:
        super().__init__(message)
        self.buffers = buffers
        self.in_use = in_use


class OutOfMemoryError(WharfError, MemoryError):
    """There is no memory within the limit of a pool, or of the device or the host.

    The bytes that were asked for, the pool's limit, and what is live and retired, where known.
    """

    def __init__(
        self,
        message: str,
        size: int | None = None,
        limit: int | None = None,
        live: int | None = None,
        retired: int | None = None,
    ) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit
        self.live = live
        self.retired = retired


class StreamError(WharfError, ValueError):
    """A stream cannot be used: of another device or thread, forgotten, or one too many."""


class WaitTimeoutError(WharfError, TimeoutError):
    """The device was not done within the time that the caller allowed."""


class StepError(WharfError):
    """A step could not be begun, written or submitted. Later steps are not affected."""


class ReaderOpenError(StepError):
    """A reader of the last step has not ended, so that the next one cannot be submitted."""


class SlotError(StepError, ValueError):
    """A slot does not exist, was not written, or was used wrongly; ``slot`` is its name."""

    def __init__(self, message: str, slot: str | None = None) -> None:
        super().__init__(message)
        self.slot = slot


class StalledError(StepError, TimeoutError):
    """No ring slot became free until the deadline."""


class StepTooLargeError(StepError, ValueError):
    """A step has more tokens or requests than the set was made for."""


class SupersededError(StepError):
    """A later step was submitted, and has overwritten the inputs of this one."""
