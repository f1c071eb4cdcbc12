"""A made-up recording of a decode kernel over launches and split counts, for search policies.

It has what the real one shows on an H100 (docs/h100.md): thread blocks run in waves, as many at
once as shared memory, warps and registers let; larger tiles and more warps hide more latency, and
blocks of more heads read the cache less often, until registers run out; partial results cost a
second kernel. Launches that need more shared memory than there is are left out, as a session
leaves them out. Each launch and each pair has an error of its own that no rule explains, and each
sample its noise.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload
from mla_tune.vllm.launch_space import LaunchSpace
from mla_tune.vllm.triton_launch import VLLM_LAUNCH

SMS = 132
SHARED_BYTES = 227 << 10
HEADS = (16, 128)
BATCHES = (1, 8, 32, 64, 128, 256)
FROZEN = 256
SPLITS = (1, 2, 4, 8, 16, 32, 64, 128)
SPILLS = Plan(block_h=64, num_warps=4)
"""A thread of such a block would need 256 registers for the result alone."""


@dataclass(frozen=True)
class Kernel:
    """Latencies of one layer with so many heads.

    Args:
        heads: query heads.
        seed: of what no rule explains.
    """

    heads: int
    seed: int = 0

    def plans(self) -> tuple[Plan, ...]:
        """All pairs of a launch and a split count, vLLM's own first."""
        counts = (FROZEN, *SPLITS)
        space = LaunchSpace(MlaDimensions(self.heads), major=9)
        launches = space.launches(SHARED_BYTES, VLLM_LAUNCH)
        own = [Plan(num_kv_splits=count) for count in counts]
        others = [plan.having(**launch) for launch in launches[1:] for plan in own]
        return (*own, *others)

    def latency_us(self, plan: Plan, shape: BatchShape) -> float:
        """Of the whole layer, in microseconds, without noise."""
        launch = launch_of(plan).over(VLLM_LAUNCH)
        batch, kv_len = shape.num_requests, shape.max_kv_len
        splits, warps = plan.number("num_kv_splits") or 1, launch.number("num_warps") or 4
        block_n, block_h = launch.number("block_n") or 32, launch.number("block_h") or 16
        head_blocks = math.ceil(self.heads / min(block_h, self.heads))
        blocks = batch * head_blocks * splits
        at_once = SMS * self._resident(launch)
        waves = math.ceil(blocks / at_once)
        tiles = math.ceil(math.ceil(kv_len / splits) / block_n)
        busy = min(blocks, at_once)
        moved_us = block_n * 1152 * busy / 5.5e6
        computed_us = block_n * max(block_h, 16) * 2176 * busy / (SMS * 3.0e6)
        hidden = 1.35 if (launch.number("num_stages") or 1) > 1 else 1.0
        waited_us = 0.9 / hidden / float((warps / 4) ** 0.3)
        tile_us = max(moved_us, computed_us) + waited_us / min(4, math.ceil(busy / SMS))
        spilt = 2.2 if SPILLS.items() <= launch.items() else 1.0
        kernel_us = waves * (tiles * tile_us * spilt + 2.5)
        least_us = batch * kv_len * 1152 / 3.0e6
        combined_us = 2.0 + batch * self.heads * splits * 2052 / 2.5e6
        return (max(kernel_us, least_us) + combined_us) * self._own_error(launch, splits) + 14.0

    def _resident(self, launch: Plan) -> int:
        """Thread blocks that one multiprocessor holds at once."""
        needed = LaunchSpace(MlaDimensions(self.heads), major=9).shared_bytes(launch)
        warps = launch.number("num_warps") or 4
        registers = (launch.number("block_h") or 16) * 16 // warps + 96
        return max(1, min(SHARED_BYTES // needed, 65536 // (32 * warps * min(registers, 255))))

    def _own_error(self, launch: Plan, splits: int) -> float:
        of_launch = random.Random(f"{self.seed} {self.heads} {launch}")
        of_pair = random.Random(f"{self.seed} {self.heads} {launch} {splits}")
        return of_launch.lognormvariate(0, 0.02) * of_pair.lognormvariate(0, 0.005)


def made_up(
    seed: int = 0,
    rounds: int = 24,
    noise: float = 0.01,
    heads: Sequence[int] = HEADS,
    batches: Sequence[int] = BATCHES,
) -> Recording:
    """A recording of every plan of ``batches`` at ``heads``, with ``noise`` and a slow drift."""
    tracks = [
        _track(Kernel(number, seed), batch, rounds, noise) for number in heads for batch in batches
    ]
    software = {"vllm": "0.33.0", "torch": "2.11.0", "triton": "3.6.0"}
    environment = Environment("made up", "9.0", SMS, 80.0, software, {})
    return Recording(Path("made_up.jsonl.gz"), environment, tuple(tracks))


def _track(kernel: Kernel, batch: int, rounds: int, noise: float) -> Track:
    listed = Workload.parse_measured(f"{batch if batch > 1 else ''}q1s{{1k,4k,16k}}+{{64k}}")
    weights = (2.0, 2.0, 1.0, 0.0)
    workload = Workload(
        tuple(Case(case.shape, weight) for case, weight in zip(listed.cases, weights, strict=True))
    )
    draw = random.Random(f"{kernel} {batch}")
    drifts = list(_drifts(rounds, draw))
    taken: dict[Plan, Sequence[tuple[float, ...]]] = {}
    plans = kernel.plans()
    for plan in plans:
        exact = [kernel.latency_us(plan, shape) for shape in workload.shapes]
        taken[plan] = [
            tuple(us * drift * draw.lognormvariate(0, noise) for us in exact) for drift in drifts
        ]
    setup = Setup("TRITON_MLA", MlaDimensions(kernel.heads), mode="graph", device="cuda")
    return Track(setup, workload, plans, taken)


def _drifts(rounds: int, draw: random.Random) -> Iterator[float]:
    drift = 1.0
    for _ in range(rounds):
        drift *= draw.lognormvariate(0, 0.002)
        yield drift
