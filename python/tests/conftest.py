"""What the tests share: a machine without a GPU for each, and which optional packages there are."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

import wharf


@pytest.fixture(params=["async", "eager", "late", "random:7"])
def machine(request: pytest.FixtureRequest) -> Iterator[wharf.Simulator]:
    """A machine with all checks, under each schedule; a test leaves nothing on it."""
    simulator = wharf.Simulator(schedule=request.param, check="all")
    yield simulator
    gc.collect()
    assert simulator.violations == []
    assert simulator.leaks == []


@pytest.fixture
def late() -> Iterator[wharf.Simulator]:
    """A machine with all checks that runs everything as late as allowed."""
    simulator = wharf.Simulator(schedule="late", check="all")
    yield simulator
    gc.collect()
    assert simulator.violations == []
    assert simulator.leaks == []


@pytest.fixture
def device(request: pytest.FixtureRequest, machine: wharf.Simulator) -> Iterator[wharf.Device]:
    """A device of the machine."""
    yield machine.device()
    # pytest keeps the arguments of a test for longer than the machine.
    request.node.funcargs.pop("device")


@pytest.fixture
def system() -> wharf.Device:
    """A device of the process's driver. Without one the tests are skipped, or fail where it must
    be there: with ``WHARF_REQUIRE_DRIVER=1``."""
    try:
        return wharf.Device(0)
    except wharf.DriverNotFoundError as error:
        if os.environ.get("WHARF_REQUIRE_DRIVER") == "1":
            raise
        pytest.skip(str(error))
