#!/usr/bin/env python3
"""Checks an SQLite export of Nsight Systems: `nsys.py FILE CATEGORY:RANGE...`.

Each range must be there, in the domain wharf, closed, of its category. One that commits memory, allocates or submits has
its bytes as payload. A RANGE that ends in ", " is the name of a set: its ranges go on with the tokens of the bucket.
"""
import re
import sqlite3
import sys

PUSH_POP, CATEGORY, DOMAIN = 59, 33, 75
SIZED = re.compile(r"::commit$|::alloc\(|::submit\(")


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
        found = [event for event in ranges if (event[3].startswith(name) if name.endswith(", ") else event[3] == name)]
        assert found, f"no range {name}"
        for _, _, number, _, end, size in found:
            assert categories[number] == category, f"{name}: category {categories[number]}"
            assert end is not None, f"{name} is not closed"
            assert size or not SIZED.search(name), f"{name}: no bytes"
        if name.endswith(", "):
            buckets = {event[3].removeprefix(name).removesuffix(")") for event in found}
            assert all(bucket.isdigit() or bucket == "no bucket" for bucket in buckets), f"{name}: buckets {buckets}"
            name += f"{len(buckets)} buckets)"
        sizes = sorted({event[5] for event in found if event[5]})
        print(f"{name}: {len(found)} ranges of category {category}" + (f", {sizes[0]} to {sizes[-1]} bytes" if sizes else ""))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (AssertionError, sqlite3.Error) as problem:
        sys.exit(f"nsys: {problem}")
