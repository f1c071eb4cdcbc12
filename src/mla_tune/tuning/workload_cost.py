"""How long workloads take beside one another, before anything is measured."""

__all__ = ["cost_of"]

from mla_tune.shapes import Workload
from mla_tune.table import Entry

FIXED_US = 50.0
"""What a sample of the smallest batch takes, launch and wait, in a rough estimate, and ..."""
US_PER_TOKEN = 5e-4
"""... what a token of KV adds on an H100 with the faster backends (README)."""


def cost_of(workload: Workload, previous: Entry | None) -> float:
    """How long a workload may take beside others: its cases times what a sample takes.

    From the entry of an earlier run where there is one; else from the KV tokens. Only the order
    matters, and how many plans there are is not known before a session is open.
    """
    if previous is not None:
        return len(workload.cases) * (FIXED_US + previous.latency_us)
    return sum(FIXED_US + US_PER_TOKEN * shape.num_kv_tokens for shape in workload.shapes)
