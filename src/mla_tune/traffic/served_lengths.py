"""How long requests are in what an engine has served, size by size of its captured graphs."""

__all__ = ["ServedLengths"]

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from mla_tune.shapes import MlaDimensions
from mla_tune.shapes.buckets import bucket_end
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.traffic.histogram import kv_bucket_end
from mla_tune.traffic.merged import MergedTraffic

FEWEST_BEYOND = 50
"""So many steps a size's share has to be: fewer could be those of one short answer."""


@dataclass(frozen=True)
class ServedLengths:
    """A record of served steps, and the share of them that may be longer than any guard.

    Attributes:
        path: the record, for messages.
        traffic: what it says.
        share: of the steps of a size; above 0.
    """

    path: Path
    traffic: MergedTraffic
    share: float

    @classmethod
    def load(cls, path: Path, share: float) -> "ServedLengths":
        """Read the record at ``path``. Raises InputError as `MergedTraffic.load`."""
        return cls(path, MergedTraffic.load(path), share)

    @cached_property
    def _steps(self) -> dict[tuple[int, int], Counter[int]]:
        """Of each size, how many steps had which longest request."""
        steps: dict[tuple[int, int], Counter[int]] = {}
        for kind, count in self.traffic.steps.items():
            if kind.mode == "graph":
                of_size = steps.setdefault((kind.batch, kind.query_len), Counter())
                of_size[_longest_of(kind.longest_kv_len)] += count
        return steps

    @property
    def fewest_steps(self) -> int:
        """Of a size: what fewer would say of its longest requests is chance."""
        return round(FEWEST_BEYOND / self.share)

    def is_of(self, model: MlaDimensions) -> bool:
        """Whether the engine served this model on so many GPUs; any backend may have served it."""
        return dict(self.traffic.engine["model"]) == asdict(model)

    def reach(self, requests: int, query_len: int) -> ServedReach | None:
        """How long the requests of all steps of a size are, but for the share of them.

        Steps that the record does not tell apart count as longer ones of this very size.

        Returns:
            None where there are too few steps, or requests about as long as that engine admits:
            nobody knows how long they would have been.
        """
        steps = self._steps.get((requests, query_len), Counter())
        if steps.total() < self.fewest_steps:
            return None
        beyond = self.traffic.others["graph"]
        total = steps.total() + beyond
        found = None
        for longest in sorted(steps, reverse=True):
            if beyond / total > self.share:
                break
            found = ServedReach(to=longest, beyond=beyond / total)
            beyond += steps[longest]
        if found is None or found.to + 1 >= self.traffic.engine["max_model_len"]:
            return None
        return found


def _longest_of(recorded: int) -> int:
    """The longest KV length that a recorded one stands for."""
    # Format 1 has the starts of eighths of an octave, which half octaves cut.
    return max(kv_bucket_end(recorded), bucket_end(recorded))
