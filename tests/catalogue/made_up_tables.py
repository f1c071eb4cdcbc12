"""Tables of several backends with latencies that a test sets."""

from pathlib import Path

from mla_tune.catalogue.found import FoundTable
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import CaseResult, Entry, Speedup, TableFile
from modelled_table import HEADER

FLASHMLA, FLASH_ATTN, TRITON = "FLASHMLA", "FLASH_ATTN_MLA", "TRITON_MLA"


def speedup(median: float, off: float = 0.01) -> Speedup:
    return Speedup(median=median, low=median * (1 - off), high=median * (1 + off))


def default(shape: str, us: float, **changes) -> Entry:
    return Entry(shape=shape, plan=UNTUNED, latency_us=us, default_us=us, **changes)


def tuned(shape: str, default_us: float, us: float, **changes) -> Entry:
    plan = Plan(num_kv_splits=2)
    gain = changes.pop("gain", speedup(default_us / us))
    changes = {"latency_us": us, "default_us": default_us, "speedup": gain} | changes
    return Entry(shape=shape, plan=plan, **changes)


def case(kv_len: int, default_us: float, us: float, weight: float = 1.0) -> CaseResult:
    gain = speedup(default_us / us)
    return CaseResult(
        kv_len=kv_len, weight=weight, latency_us=us, default_us=default_us, speedup=gain
    )


def table(backend: str, *entries: Entry, path: str = "", **header) -> FoundTable:
    update = {"backend": backend} | header
    if mode := update.pop("mode", None):
        update["engine"] = HEADER.engine.model_copy(update={"mode": mode})
    file = TableFile(HEADER.model_copy(update=update), entries, None)
    return FoundTable(Path(path or f"{backend}.yaml"), file)
