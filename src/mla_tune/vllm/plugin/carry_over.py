"""Whether splits that beat a table's frozen default also beat the one this engine freezes.

What a decode graph freezes by default depends on the engine, in a way of its own in each backend.
So each backend says here when its splits carry over; of one that is not named, none do.
"""

__all__ = ["splits_carry_over"]

from collections.abc import Callable, Mapping

from mla_tune.table import Header
from mla_tune.table.matching import EngineFacts
from mla_tune.vllm.plugin.splits import still_better
from mla_tune.vllm.triton_splits import SplitRule


def splits_carry_over(splits: int, header: Header, facts: EngineFacts) -> bool:
    """Whether ``splits`` of the graph table with ``header`` may be frozen in this engine."""
    rule = _RULES.get(facts.backend)
    return rule is not None and rule(splits, header, facts)


def _triton_mla(splits: int, header: Header, facts: EngineFacts) -> bool:
    """The default is vLLM's split rule at max_model_len."""
    rule = SplitRule.of_vllm(facts.sm_count)
    return still_better(
        splits,
        table_default=rule.splits(header.engine.max_model_len),
        engine_default=rule.splits(facts.max_model_len),
    )


def _cutlass_mla(splits: int, header: Header, facts: EngineFacts) -> bool:
    """The default depends on the width of the block table, in a way only a measurement tells."""
    del splits
    return header.engine.max_model_len == facts.max_model_len


def _flash_attn_mla(splits: int, header: Header, facts: EngineFacts) -> bool:
    """The cap does not depend on max_model_len, but a graph needs one.

    Without a bound (0) the kernel sizes its buffers at capture and its schedule at each step,
    from different lengths.
    """
    del header, facts
    return splits > 0


_RULES: Mapping[str, Callable[[int, Header, EngineFacts], bool]] = {
    "TRITON_MLA": _triton_mla,
    "CUTLASS_MLA": _cutlass_mla,
    "FLASH_ATTN_MLA": _flash_attn_mla,
}
