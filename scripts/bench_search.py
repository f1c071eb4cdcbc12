#!/usr/bin/env python3
"""Compare search policies on recordings: regret by held-out rounds, and measurements spent.

    python scripts/bench_search.py tests/data/*.gz tests/data/h100/*.gz --out docs

Every policy runs through the real tuner and Optuna, on a bench that plays back the earlier half of
the recorded rounds; the later half judges. Writes search.md and search.png: ten minutes on two
cores.
"""

import argparse
import concurrent.futures
from collections.abc import Sequence
from pathlib import Path

from search_alike import published_alike
from search_document import Findings, document, everywhere
from search_tables import plot
from search_tunes import tunes


def findings(recordings: Sequence[Path], seeds: int, jobs: int) -> Findings:
    """All results, worked out by ``jobs`` processes."""
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        parts = [pool.submit(tunes, path, seed) for path in recordings for seed in range(seeds)]
        nulls = [pool.submit(published_alike, path, 0) for path in recordings]
        results = [result for part in parts for result in part.result()]
        alike = [found for null in nulls for found in null.result()]
    return Findings(results, alike, seeds)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    found = findings(args.recordings, args.seeds, args.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "search.md").write_text(document(found))
    plot(everywhere(found.results), args.out / "search.png")


if __name__ == "__main__":
    main()
