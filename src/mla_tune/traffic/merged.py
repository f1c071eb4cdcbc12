"""The traffic histograms of all processes of one engine, merged."""

__all__ = ["MergedTraffic"]

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mla_tune.errors import InputError
from mla_tune.traffic.histogram import StepKind
from mla_tune.traffic.histogram_file import HistogramFile, histogram_files

# The fields of a file in which all processes of one engine agree.
_ENGINE = (
    *("backend", "model", "kv_cache_dtype", "quantization", "device", "vllm"),
    *("max_model_len", "block_size", "max_cudagraph_capture_size"),
)


@dataclass
class MergedTraffic:
    """What the files of ``MLA_TUNE_RECORD`` say together.

    Attributes:
        engine: the fields of a file that describe the engine.
        steps, requests: by kind of step.
        others: steps of the kinds that the files do not list one by one, by mode.
        has_padded_means: whether a file of format 1 is among them.
    """

    engine: dict[str, Any]
    steps: Counter[StepKind] = field(default_factory=Counter)
    requests: Counter[StepKind] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    has_padded_means: bool = False

    @classmethod
    def load(cls, path: Path) -> "MergedTraffic":
        """Read the files that were written with ``MLA_TUNE_RECORD=path``.

        Raises:
            InputError: there are none, one cannot be read, they are of different engines, or they
                hold no steps.
        """
        files = histogram_files(path)
        if not files:
            raise InputError(
                f"there is no traffic histogram {path} (nor {path.name}.*.json beside it)",
                remedy="serve with MLA_TUNE_TABLES and MLA_TUNE_RECORD set; files follow the first "
                "half minute of traffic",
            )
        traffic: MergedTraffic | None = None
        # One after the other: only the counts are kept.
        for file in map(HistogramFile.load, files):
            engine = file.model_dump(include=set(_ENGINE))
            if traffic is None:
                traffic = cls(engine)
            _refuse_another(path, traffic.engine, engine)
            traffic._add(file)
        assert traffic is not None
        if not traffic.steps:
            raise InputError(
                f"the traffic histogram {path} holds no steps", remedy="serve some traffic first"
            )
        return traffic

    def _add(self, file: HistogramFile) -> None:
        for step in file.steps:
            kind = StepKind(*(getattr(step, name) for name in StepKind._fields))
            self.steps[kind] += step.count
            # Format 1 did not tell requests from rows.
            self.requests[kind] += step.requests or step.batch * step.count
        for others in file.others:
            self.others[others.mode] += others.count
        self.has_padded_means |= file.format == 1


def _refuse_another(path: Path, first: dict[str, Any], engine: dict[str, Any]) -> None:
    for name in _ENGINE:
        if engine[name] != first[name]:
            raise InputError(
                f"the traffic histograms of {path} are of different engines: {name} is "
                f"{first[name]} and {engine[name]}",
                remedy="give each engine a MLA_TUNE_RECORD of its own, or remove the old files",
            )
