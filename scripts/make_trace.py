#!/usr/bin/env python3
"""A made-up trace of chat requests, in the format of Azure's public LLM inference traces.

    python scripts/make_trace.py --requests 4000 --seed 0 > trace.csv

Requests come in bursts: a Poisson process whose rate changes between a quiet and a busy one, each
for an exponentially long time. Context and output lengths are log-normal and independent of
each other. The same arguments give the same bytes.
"""

import argparse
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

BEGIN = datetime(2023, 11, 16, 18, 0)


@dataclass(frozen=True)
class Traffic:
    """What the requests are like.

    Attributes:
        requests: how many.
        per_second: their mean rate.
        burst: rate of busy times over that of quiet ones.
        phase_s: mean length of either.
        context, context_sigma: median tokens, and standard deviation of their logarithm.
        output, output_sigma: the same of the answers.
        longest: tokens of a context or an answer, at most.
    """

    requests: int = 4000
    per_second: float = 2.0
    burst: float = 4.0
    phase_s: float = 20.0
    context: int = 1000
    context_sigma: float = 0.8
    output: int = 150
    output_sigma: float = 0.9
    longest: int = 65536


def trace_lines(traffic: Traffic, seed: int) -> Iterator[str]:
    """The lines of the trace, its header first."""
    yield "TIMESTAMP,ContextTokens,GeneratedTokens"
    draw = random.Random(seed)
    quiet = 2 * traffic.per_second / (1 + traffic.burst)
    rates = (quiet, quiet * traffic.burst)
    now_s, is_busy = 0.0, False
    phase_ends_s = draw.expovariate(1 / traffic.phase_s)
    for _ in range(traffic.requests):
        # What is left of a gap when the rate changes is drawn anew: it has no memory.
        while (next_s := now_s + draw.expovariate(rates[is_busy])) > phase_ends_s:
            now_s, is_busy = phase_ends_s, not is_busy
            phase_ends_s += draw.expovariate(1 / traffic.phase_s)
        now_s = next_s
        context = _tokens(draw, traffic.context, traffic.context_sigma, traffic.longest)
        output = _tokens(draw, traffic.output, traffic.output_sigma, traffic.longest)
        yield f"{BEGIN + timedelta(seconds=now_s):%Y-%m-%d %H:%M:%S.%f}0,{context},{output}"


def _tokens(draw: random.Random, median: int, sigma: float, most: int) -> int:
    return max(1, min(most, round(draw.lognormvariate(math.log(median), sigma))))


def main() -> None:
    """Parse the arguments and print the trace."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    for name, value in vars(Traffic()).items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(value), default=value, help=f"default {value}")
    args = vars(parser.parse_args())
    seed = args.pop("seed")
    for line in trace_lines(Traffic(**args), seed):
        print(line)


if __name__ == "__main__":
    main()
