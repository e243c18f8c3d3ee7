#!/usr/bin/env python3
"""Checks an SQLite export of Nsight Systems: `nsys.py FILE CATEGORY:RANGE...`.

Each range must be there, in the domain wharf, closed, of its category; what commits memory or submits a step has bytes.
"""
import sqlite3
import sys

PUSH_POP, CATEGORY, DOMAIN = 59, 33, 75


def main(path, *wanted):
    database = sqlite3.connect(path)
    events = database.execute(
        "select eventType, domainId, category, coalesce(text, (select value from StringIds where id = textId)), "
        "end, uint64Value from NVTX_EVENTS"
    ).fetchall()
    domains = [event[1] for event in events if event[0] == DOMAIN and event[3] == "wharf"]
    assert len(domains) == 1, f"domains named wharf: {domains}"
    ours = [event for event in events if event[1] == domains[0]]
    categories = {event[2]: event[3] for event in ours if event[0] == CATEGORY}
    ranges = [event for event in ours if event[0] == PUSH_POP]
    for want in wanted:
        category, name = want.split(":", 1)
        found = [event for event in ranges if event[3] == name]
        assert found, f"no range {name}"
        for _, _, number, _, end, size in found:
            assert categories[number] == category, f"{name}: category {categories[number]}"
            assert end is not None, f"{name} is not closed"
            assert size or not name.endswith(("::commit", "::submit")), f"{name}: no bytes"
        print(f"{name}: {len(found)} ranges of category {category}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (AssertionError, sqlite3.Error) as problem:
        sys.exit(f"nsys: {problem}")
