#!/usr/bin/env python3
"""numba-cuda's tests of its driver layer, test by test, without and with wharf's memory manager.

    LD_LIBRARY_PATH=DRIVER-FOLDER suites/numba_suite.py

On softcuda kernels have no effect, so some tests fail either way: what counts is the difference. A test
that passes without the manager and not with it is lost: it must be in `numba_suite.txt`, with its reason. So
must every test that is in that file be lost, or the file is out of date. A test that is lost and not
listed is run once more by itself, with and without the manager, before it counts.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).parent
SUITE = "numba.cuda.tests.cudadrv"
MANAGER = {"NUMBA_CUDA_MEMORY_MANAGER": "wharf.numba"}
#: Fewer tests than these are a suite that did not run.
AT_LEAST = (250, 190)


class Results(unittest.TestResult):
    """The result of each test by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.of.setdefault(test.id(), "passed")

    def addFailure(self, test: unittest.TestCase, err: object) -> None:
        self.of[test.id()] = "failed"

    def addError(self, test: unittest.TestCase, err: object) -> None:
        self.of[test.id()] = "failed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.of[test.id()] = f"skipped: {reason}"

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: object) -> None:
        if err is not None:
            self.of[test.id()] = "failed"


def run(names: list[str], output: Path) -> None:
    """Runs tests in this process, all of the suite where none is named."""
    if not names:
        package = importlib.import_module(SUITE)
        names = [f"{SUITE}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    results = Results()
    unittest.defaultTestLoader.loadTestsFromNames(names).run(results)
    output.write_text(json.dumps(results.of))


def both(names: list[str], folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The results without and with the manager, of two processes at once."""
    outputs = [folder / "numba-without.json", folder / "numba-with.json"]
    children = []
    for output, settings in zip(outputs, ({}, MANAGER), strict=True):
        output.unlink(missing_ok=True)
        log = output.with_suffix(".log").open("w")
        command = [sys.executable, __file__, "--run", str(output), *names]
        children.append(subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log))
    codes = [child.wait() for child in children]
    if codes != [0, 0] or not all(output.exists() for output in outputs):
        sys.exit(f"the suite ended early: {codes}; see {folder}/numba-*.log")
    without, with_manager = (json.loads(output.read_text()) for output in outputs)
    return without, with_manager


def lost(without: dict[str, str], with_manager: dict[str, str]) -> dict[str, str]:
    """What passes without the manager alone, and what became of it."""
    found = {name: with_manager.get(name, "no result") for name in without}
    return {n: r for n, r in found.items() if without[n] == "passed" and r != "passed"}


def main(folder: Path) -> None:
    lines = (HERE / "numba_suite.txt").read_text().splitlines()
    known = dict(line.split(" # ", 1) for line in lines if line and not line.startswith("#"))
    without, with_manager = both([], folder)
    missing = lost(without, with_manager)
    doubtful = sorted(set(missing) - set(known))
    if doubtful:
        again = lost(*both(doubtful, folder))
        missing = {name: result for name, result in missing.items() if name in known or name in again}
    passed = [sum(result == "passed" for result in results.values()) for results in (without, with_manager)]
    print(f"{len(without)} tests; passed without and with wharf's manager: {passed[0]}, {passed[1]}")
    for name, result in sorted(missing.items()):
        print(f"lost: {name} ({result}): {known.get(name, 'NOT LISTED')}")
    stale = sorted(set(known) - set(missing))
    for name in stale:
        print(f"listed in numba_suite.txt and not lost: {name}")
    if len(without) < AT_LEAST[0] or passed[0] < AT_LEAST[1] or set(missing) - set(known) or stale:
        sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[3:], Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
