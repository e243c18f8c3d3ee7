"""The README's programs run as a reader runs them: one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wharf

README = Path(__file__).parent.parent / "README.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
TOUR = [program for program in PROGRAMS if not program.startswith("# needs:")]
OTHERS = [program for program in PROGRAMS if program.startswith("# needs:")]


def test_the_tour() -> None:
    names: dict[str, object] = {}
    assert len(TOUR) == 7
    for number, program in enumerate(TOUR):
        exec(compile(program, f"README.md, program {number + 1}", "exec"), names)
    simulator = names["simulator"]
    assert isinstance(simulator, wharf.Simulator)
    assert simulator.violations == []


@pytest.mark.parametrize("program", OTHERS)
def test_programs_with_other_libraries(program: str, system: wharf.Device) -> None:
    pytest.importorskip(program.splitlines()[0].removeprefix("# needs: "))
    exec(compile(program, "README.md", "exec"), {})
