"""What the workloads of a graph table are measured with beside their listed shapes."""

__all__ = ["GraphGuards"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mla_tune.shapes import Workload
from mla_tune.shapes.file import ShapesFile
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.traffic.served_lengths import ServedLengths
from mla_tune.tuning.graph_cases import longest_of_one, longest_served
from mla_tune.tuning.guards import Fits, guarded
from mla_tune.tuning.ragged import ragged_about, with_ragged


@dataclass(frozen=True)
class GraphGuards:
    """Guards and ragged batches for the workloads of one graph table.

    Attributes:
        backend: whose table, for messages.
        shapes: what the engine serves.
        fits: whether shapes can be loaded together.
        served: the record that bounds how long their requests are; None: the engine alone does.
        skipped: told of everything that is left out, and why.
    """

    backend: str
    shapes: ShapesFile
    fits: Fits
    served: ServedLengths | None
    skipped: Callable[[str], None]

    def around(self, workloads: Sequence[Workload]) -> list[Workload]:
        """``workloads``, which have listed shapes alone, with what they are to be guarded by."""
        self._tell_of_unused_specs(workloads)
        reaches = [self._reach(workload) for workload in workloads]
        self._tell_of_record(reaches)
        # Guards take what the ragged batches leave: no engine uses an entry of uniform ones alone,
        # and it seldom has the cache for as many long requests as fit here.
        ragged = list(map(self._with_ragged, workloads, reaches))
        return [
            replace(workload, served=reach)
            for workload, reach in zip(self._guarded(ragged, reaches), reaches, strict=True)
        ]

    def _with_ragged(self, workload: Workload, reach: ServedReach | None) -> Workload:
        longest = self._longest_of_one(workload, reach)
        return with_ragged(workload, self.shapes.ragged, longest, self.fits)

    def _longest_of_one(self, workload: Workload, reach: ServedReach | None) -> int:
        return _within(longest_of_one(self.shapes, workload), reach)

    def _reach(self, workload: Workload) -> ServedReach | None:
        """What the record leaves out of all that the engine can serve; None: nothing."""
        if self.served is None:
            return None
        group = workload.listed[0].shape.groups[0]
        longest = longest_served(self.shapes, group.count), longest_of_one(self.shapes, workload)
        reach = self.served.reach(group.count, group.query_len)
        return reach if reach is not None and reach.to < max(longest) else None

    def _guarded(
        self, workloads: Sequence[Workload], reaches: Sequence[ServedReach | None]
    ) -> list[Workload]:
        """With guards of long requests; says where this GPU's memory ends them."""
        found: list[Workload] = []
        cut: dict[int, int] = {}
        num_cut = 0
        for workload, reach in zip(workloads, reaches, strict=True):
            requests = workload.listed[0].shape.num_requests
            longest = _within(longest_served(self.shapes, requests), reach)
            of_one = self._longest_of_one(workload, reach)
            ragged = ragged_about(workload, self.shapes.ragged, of_one)
            found.append(guarded(workload, longest, self.fits, ragged))
            uniform = [case.shape for case in found[-1].cases if not case.is_ragged]
            held = max(shape.max_kv_len for shape in uniform)
            if held < longest:
                cut[held] = requests
                num_cut += 1
        if cut:
            least = min(cut)
            self.skipped(
                f"{self.backend}, graph: {num_cut} batch sizes can be measured to less than the "
                f"engine's KV lengths in this memory ({cut[least]} requests to {least} tokens); "
                "their entries hold so far"
            )
        return found

    def _tell_of_unused_specs(self, workloads: Sequence[Workload]) -> None:
        groups = [workload.listed[0].shape.groups[0] for workload in workloads]
        sizes = {(group.count, group.query_len) for group in groups}
        if unused := [f"{n}q{q}" for n, q in self.shapes.ragged.sizes if (n, q) not in sizes]:
            self.skipped(
                f"{self.backend}, graph: ragged_specs of sizes that are not tuned skipped: "
                f"{', '.join(unused)}"
            )

    def _tell_of_record(self, reaches: Sequence[ServedReach | None]) -> None:
        if self.served is None:
            return
        bounded = sum(reach is not None for reach in reaches)
        rest = (
            f"; the others have fewer than {self.served.fewest_steps} recorded steps, or requests "
            "about as long as the engine admits"
        )
        self.skipped(
            f"{self.backend}, graph: {bounded} of {len(reaches)} batch sizes are guarded as far as "
            f"{self.served.path} reaches{rest if bounded < len(reaches) else ''}"
        )


def _within(longest: int, reach: ServedReach | None) -> int:
    return longest if reach is None else min(longest, reach.to)
