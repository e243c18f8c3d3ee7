"""What the tests share: a machine without a GPU for each, and which optional packages there are."""

from __future__ import annotations

import gc
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
