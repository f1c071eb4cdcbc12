"""What an entry that serves several KV lengths says of the one that was asked for."""

__all__ = ["AtLength"]

from dataclasses import dataclass

from mla_tune.table import CaseResult, Lookup


@dataclass(frozen=True)
class AtLength:
    """Measured figures for the batch that a lookup asked for.

    Attributes:
        cases: the one of that very batch; else those of the KV lengths next to it, below and
            above, as far as there are any.
        is_exact: whether it is that very batch.
    """

    cases: tuple[CaseResult, ...]
    is_exact: bool

    @classmethod
    def of(cls, lookup: Lookup) -> "AtLength | None":
        """None where the entry has no figures but its own, as one that keeps the default."""
        cases = () if lookup.entry is None else lookup.entry.cases
        if not cases:
            return None
        asked = lookup.asked
        if len(asked.groups) > 1:
            found = [case for case in cases if case.shape == str(asked)]
            return cls(tuple(found), True) if found else None
        uniform = sorted((case for case in cases if case.shape is None), key=lambda c: c.kv_len)
        same = [case for case in uniform if case.kv_len == asked.max_kv_len]
        if same:
            return cls((same[0],), True)
        below = [case for case in uniform if case.kv_len < asked.max_kv_len][-1:]
        above = [case for case in uniform if case.kv_len > asked.max_kv_len][:1]
        return cls((*below, *above), False)
