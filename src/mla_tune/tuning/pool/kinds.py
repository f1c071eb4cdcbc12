"""The kinds of devices that a run has: each has tables of its own."""

__all__ = ["by_kind", "tell_of_gpus"]

from collections.abc import Callable, Sequence

from mla_tune.errors import InputError
from mla_tune.tuning.device_bench import tell_of_gpu
from mla_tune.tuning.pool.member import Kind, Member


def by_kind(members: Sequence[Member]) -> dict[Kind, list[Member]]:
    """Devices that share their tables.

    Raises:
        InputError: the tables of two kinds would be one file.
    """
    kinds: dict[Kind, list[Member]] = {}
    for member in members:
        kinds.setdefault(member.kind, []).append(member)
    by_name: dict[str, Member] = {}
    for own in kinds.values():
        member = own[0]
        other = by_name.setdefault(member.environment.device_name, member)
        if other is not member:
            raise InputError(
                f"{other.name} and {member.name} are both called {member.environment.device_name} "
                f"and are not alike: {_difference(other, member)}",
                remedy="tune them in runs of their own, each with its own folder of tables (--out)",
            )
    return kinds


def tell_of_gpus(members: Sequence[Member], notice: Callable[[str], None]) -> None:
    """As `tell_of_gpu`, once for all that are alike."""
    told: dict[str, None] = {}
    for member in members:
        tell_of_gpu(member.environment, lambda what: told.setdefault(what))
    for what in told:
        notice(what)


def _difference(one: Member, other: Member) -> str:
    """In what two devices of one name differ, in words."""
    mine, theirs = one.environment, other.environment
    fields = ("compute_capability", "sm_count", "locked_sm_clock_mhz", "software", "kernels")
    for field in fields:
        here, there = getattr(mine, field), getattr(theirs, field)
        if here != there:
            return f"{field} is {here} and {there}"
    return "their software differs"
