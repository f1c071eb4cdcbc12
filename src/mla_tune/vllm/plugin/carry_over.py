"""Whether splits that beat a table's frozen default also beat the one this engine freezes."""

__all__ = ["splits_carry_over"]

from mla_tune.registry import vllm_backend
from mla_tune.table import Header
from mla_tune.table.matching import EngineFacts
from mla_tune.vllm.backend import FrozenSplits


def splits_carry_over(splits: int, header: Header, facts: EngineFacts) -> bool:
    """Whether ``splits`` of the graph table with ``header`` may be frozen in this engine.

    Each backend has a rule of its own; of one that has none, no splits carry over.
    """
    of_backend = vllm_backend(facts.backend).splits
    return of_backend is not None and of_backend.carry_over(
        FrozenSplits(
            splits=splits,
            measured_max_model_len=header.engine.max_model_len,
            max_model_len=facts.max_model_len,
            sm_count=facts.sm_count,
        )
    )
