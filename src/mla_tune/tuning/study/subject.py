"""What the studies of one table job are of, for names and attributes that a person reads."""

__all__ = ["Subject"]

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mla_tune.plan.plan import Plan
from mla_tune.table import Header

LONGEST_SHAPE = 80
"""Letters of a workload's key in a study's name; ragged batches have keys of hundreds."""


@dataclass(frozen=True)
class Subject:
    """What a study is of, beside its workload.

    Attributes:
        title: begins the names of its studies.
        facts: attributes of each of its studies.
    """

    title: str = ""
    facts: Mapping[str, str | int] = field(default_factory=dict)

    @classmethod
    def of(cls, header: Header, software_digest: str) -> "Subject":
        """What the table of ``header`` is for, under the software of ``software_digest``."""
        model, engine = header.model, header.engine
        heads = model["num_q_heads"]
        title = f"{header.backend} {heads} heads {header.kv_cache_dtype} {engine.mode}"
        facts: dict[str, str | int] = {
            "backend": header.backend,
            "heads": heads,
            "model": ", ".join(f"{name} {size}" for name, size in model.items()),
            "KV cache dtype": header.kv_cache_dtype,
            "quantization": header.quantization,
            "mode": engine.mode,
            "max_model_len": engine.max_model_len,
            "device": header.device.name,
            "software": ", ".join(f"{name} {version}" for name, version in header.software.items()),
            "software digest": software_digest,
        }
        others = ("block_size", "max_cudagraph_capture_size", "index_topk")
        settings = {name: getattr(engine, name) for name in others}
        return cls(title, facts | {n: value for n, value in settings.items() if value is not None})

    def study_name(self, workload: str, plans: Sequence[Plan]) -> str:
        """Such as ``TRITON_MLA 16 heads auto graph 32q1s{1k,4k,16k} #51bcd80d``.

        Another plan space, and what else another study needs, changes the number at the end:
        parameters of a study keep their distributions.

        Args:
            workload: as `Workload.measured_key`.
            plans: its plan space.
        """
        space = [dict(plan) for plan in plans]
        told = repr((workload, space, sorted(self.facts.items())))
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        listed = workload.partition("+")[0]
        if len(listed) > LONGEST_SHAPE:
            listed = f"{listed[: LONGEST_SHAPE - 1]}…"
        return " ".join(filter(None, [self.title, listed, f"#{digest}"]))


def earlier_study_name(workload: str, plans: Sequence[Plan]) -> str:
    """What the study was called by versions whose trials had one parameter, the plan's position."""
    space = hashlib.sha256(repr([dict(plan) for plan in plans]).encode()).hexdigest()[:8]
    return f"{workload}#{space}"
