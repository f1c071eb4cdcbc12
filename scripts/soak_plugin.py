"""Serve many steps through the plugin's builders on the CPU: memory and time a step stay flat.

vLLM's own builders with the plugin build the metadata of mixed traffic, as a model runner asks for
it: replays of decode graphs with padded rows, decodes outside the graphs, extends of one and of
several query lengths, prefills beside decodes, and the idle steps of a data-parallel rank, with
recording on. Attention itself does not run.

    python scripts/soak_plugin.py [--steps 200000] [TRITON_MLA FLASH_ATTN_MLA]

Exits with 1 if resident memory grows by more than --most-growth-mib after the first report, or if
steps take more than --most-slowdown times as long in the last one as in the first.
"""

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch

from asked_tables import write_tables
from cpu_builders import flash_attention_stand_ins, make_builder, with_gpu_units
from mla_tune.environment import probe
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm.plugin import register
from mla_tune.vllm.session.config import current_config, use_cpu_platform
from needs import need

MODEL = MlaDimensions(num_q_heads=16)
MAX_MODEL_LEN = 32768
MOST_REQUESTS = 256
CAPTURES = [1, 2, 4, 8, 16, 32, 64]
REPORTS = 10
WARM_UP = 2000

PLANS: dict[str, dict[str, Plan]] = {
    "graph": {f"{size}q1s{{1k,4k}}": Plan(num_kv_splits=8) for size in CAPTURES[1:]},
    "eager": {
        "96q1s2k": Plan(num_kv_splits=4),
        "192q1s4k": Plan(num_kv_splits=2),
        "8q64s2k": Plan(reorder_batch_threshold=64),
        "8q256s4k": Plan(reorder_batch_threshold=128),
    },
}

# New tokens and KV lengths of a step's requests, and the rows that pad them to a graph's size.
Step = tuple[list[int], list[int], int]


class Traffic:
    """Steps of an engine under load, different at every call and the same in every run."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.kinds: dict[str, Callable[[], Step]] = {
            "replay": self._replay,
            "decode": self._decode,
            "extend": self._extend,
            "ragged": self._ragged,
            "mixed": self._mixed,
        }

    def draw(self) -> tuple[str, Step]:
        kind = self._random.choices(list(self.kinds), weights=(60, 15, 5, 5, 10))[0]
        return kind, self.kinds[kind]()

    def is_idle(self) -> bool:
        return self._random.random() < 0.05

    def idle_size(self) -> int:
        return self._random.choice(CAPTURES)

    def _length(self) -> int:
        return int(2 ** self._random.uniform(6, 14.9))

    def _lengths(self, count: int) -> list[int]:
        """Alike most of the time; else as they come, which the plugin calls skewed."""
        length = self._length()
        if self._random.random() < 0.8:
            return [self._random.randint(7 * length // 8, length) for _ in range(count)]
        return [self._length() for _ in range(count)]

    def _replay(self) -> Step:
        size = self._random.choice(CAPTURES)
        requests = self._random.randint(size // 2 + 1, size)
        return [1] * requests, self._lengths(requests), size - requests

    def _decode(self) -> Step:
        requests = self._random.randint(65, MOST_REQUESTS)
        return [1] * requests, self._lengths(requests), 0

    def _extend(self) -> Step:
        requests, query_len = self._random.randint(2, 12), self._random.choice([48, 64, 200, 256])
        return [query_len] * requests, [query_len + kv for kv in self._lengths(requests)], 0

    def _ragged(self) -> Step:
        queries = sorted(self._random.randint(2, 600) for _ in range(self._random.randint(2, 16)))
        return queries, [query + self._length() for query in queries], 0

    def _mixed(self) -> Step:
        queries, kv_lens, _ = self._ragged()
        decodes = self._random.randint(1, 48)
        return [1] * decodes + queries, self._lengths(decodes) + kv_lens, 0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("backends", nargs="*", default=["TRITON_MLA", "FLASH_ATTN_MLA"])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--most-growth-mib", type=float, default=16.0)
    parser.add_argument("--most-slowdown", type=float, default=1.5)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="mla-tune-soak-") as folder:
        os.environ["MLA_TUNE_RECORD"] = str(Path(folder, "served.json"))
        _set_up(arguments.backends)
        for name in arguments.backends:
            growth, slowdown = _soak(name, arguments.steps)
            print(f"{name}: {growth:+.1f} MiB and {slowdown:.2f}x after the first report")
            failed |= growth > arguments.most_growth_mib or slowdown > arguments.most_slowdown
        for record in sorted(Path(folder).iterdir()):
            print(f"{record.name}: {record.stat().st_size} bytes")
    return int(failed)


def _set_up(backends: list[str]) -> None:
    use_cpu_platform()
    import vllm.v1.attention.backends.fa_utils as fa_utils

    with_gpu_units()
    for name, stand_in in flash_attention_stand_ins(_Forgetful()).items():
        setattr(fa_utils, name, stand_in)
    environment = probe("cpu")
    print(f"{environment.device_name}, vLLM {environment.software['vllm']}")
    asked = {(name, mode): plans for name in backends for mode, plans in PLANS.items()}
    tables = write_tables(asked, environment, MODEL, MAX_MODEL_LEN)
    os.environ["MLA_TUNE_TABLES"] = str(tables)
    register()


class _Forgetful(list[int]):
    def append(self, _: int) -> None:
        """Keep nothing: this list must not be what grows."""


def _soak(name: str, steps: int) -> tuple[float, float]:
    """Serve ``steps`` steps with the builder of ``name``.

    Returns the growth of resident memory after the first report, in MiB, and by what factor steps
    take longer in the last report than in the first.
    """
    builder, parts = make_builder(name, MODEL, MAX_MODEL_LEN, MOST_REQUESTS, CAPTURES)
    if not hasattr(builder, "mla_tune_backend"):
        raise SystemExit(f"{name}: the registry gave vLLM's own builder")
    traffic, every = Traffic(seed=7), max(1, steps // REPORTS)
    reports: list[tuple[float, dict[str, float]]] = []
    with _config(parts):
        for size in CAPTURES:
            builder.build_for_cudagraph_capture(_batch(([1] * size, [1] * size, 0), MAX_MODEL_LEN))
        _serve(builder, traffic, min(every, WARM_UP))
        for served in range(every, steps + 1, every):
            taken = _serve(builder, traffic, every)
            gc.collect()
            reports.append((_resident_mib(), taken))
            told = "  ".join(f"{kind} {us:5.1f}" for kind, us in sorted(taken.items()))
            kept = builder.step_policy.deployment.lookups.steps.known
            print(
                f"{name} {served:7} steps  {reports[-1][0]:7.1f} MiB, {kept} lookups kept  "
                f"us a step: {told}",
                flush=True,
            )
    print(f"mla-tune: {builder.step_policy.deployment.counts}")
    builder.step_policy.deployment.traffic_writer.close()
    (first_mib, first), (last_mib, last) = reports[0], reports[-1]
    # Of all kinds together: the scheduler of a busy machine disturbs one or the other.
    return last_mib - first_mib, statistics.geometric_mean(
        last[kind] / first[kind] for kind in last
    )


def _config(parts: Any) -> AbstractContextManager[None]:
    return current_config(parts.vllm_config)


def _serve(builder: Any, traffic: Traffic, steps: int) -> dict[str, float]:
    """Microseconds of this thread that ``builder`` takes, by kind of step.

    The fastest decile: the rest is as slow as the other processes of the machine make it.
    """
    taken: dict[str, list[int]] = defaultdict(list)
    for _ in range(steps):
        if traffic.is_idle():
            size = traffic.idle_size()
            kind, batch = "idle", _batch(([1] * size, [1] * size, 0), MAX_MODEL_LEN)
            started = time.thread_time_ns()
            builder.build_for_cudagraph_capture(batch)
        else:
            kind, step = traffic.draw()
            batch = _batch(step)
            started = time.thread_time_ns()
            builder.build(0, batch)
        taken[kind].append(time.thread_time_ns() - started)
    return {kind: sorted(times)[len(times) // 10] / 1e3 for kind, times in taken.items()}


def _batch(step: Step, max_seq_len: int | None = None) -> Any:
    """What a model runner hands a builder; rows that pad it have no tokens and length 0."""
    from vllm.v1.attention.backend import CommonAttentionMetadata

    queries, kv_lens, padding = step
    queries, kv_lens = [*queries, *[0] * padding], [*kv_lens, *[0] * padding]
    start = torch.tensor([0, *queries], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    lens = torch.tensor(kv_lens, dtype=torch.int32)
    tokens = int(start[-1])
    return CommonAttentionMetadata(
        query_start_loc=start,
        query_start_loc_cpu=start,
        seq_lens=lens,
        seq_lens_cpu_upper_bound=lens,
        num_reqs=len(queries),
        num_actual_tokens=tokens,
        max_query_len=max(queries),
        max_seq_len=max_seq_len or max(kv_lens),
        block_table_tensor=torch.zeros((len(queries), 1), dtype=torch.int32),
        slot_mapping=torch.zeros(tokens, dtype=torch.int64),
    )


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    need("vllm")
    sys.exit(main())
