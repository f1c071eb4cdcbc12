#!/usr/bin/env python3
"""Do two independent tunes agree? Counts winners that are outside each other's tie sets.

python scripts/compare_tables.py FOLDER_A FOLDER_B
"""

import argparse
from pathlib import Path

from mla_tune.plan.plan import Plan
from mla_tune.table import Entry, TableFile


def accepted(entry: Entry) -> set[Plan]:
    """Say which plans an entry calls as good as its winner, the winner among them."""
    return {entry.plan, *entry.ties}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folders", type=Path, nargs=2)
    compare(*parser.parse_args().folders)


def compare(one: Path, other: Path) -> None:
    """Compare every table that stands in both folders."""
    compared = same = apart = 0
    for path in sorted(one.glob("*.yaml")):
        twin = other / path.name
        if not twin.exists():
            continue
        second = {entry.shape: entry for entry in TableFile.load(twin).entries}
        for entry in TableFile.load(path).entries:
            if entry.shape not in second:
                continue
            match = second[entry.shape]
            compared += 1
            same += entry.plan == match.plan
            if entry.plan not in accepted(match) or match.plan not in accepted(entry):
                apart += 1
                print(f"{path.stem} {entry.shape}: {entry.plan} against {match.plan}")
                print(f"  {entry.speedup}\n  {match.speedup}")
    print(
        f"{compared} entries in both, {same} with the same winner, {apart} with a winner outside "
        "the other's tie set"
    )


if __name__ == "__main__":
    main()
