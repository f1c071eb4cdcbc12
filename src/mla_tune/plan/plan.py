"""A plan: values for some of the knobs. The empty plan is the backend as it is."""

__all__ = ["UNTUNED", "Plan"]

from collections.abc import Iterator, Mapping
from typing import Any, Never, Self

from mla_tune.errors import InputError
from mla_tune.plan.knob import KNOBS


class Plan(Mapping[str, int | str]):
    """The knobs that are set, by name, in the order of `KNOBS`. It cannot be changed.

    A knob that is not in a plan stays as the backend has it, so the empty plan, which is false,
    is the backend's default.

    Raises:
        InputError: an unknown knob, or a value of the wrong type.

    Example:
        >>> plan = Plan(prefill_backend="fa3", num_kv_splits=8)
        >>> str(plan), plan["num_kv_splits"], plan.get("reorder_batch_threshold")
        ('num_kv_splits=8 prefill_backend=fa3', 8, None)
        >>> plan.without("prefill_backend").having(num_kv_splits=4)
        Plan(num_kv_splits=4)
        >>> bool(Plan())
        False
    """

    __slots__ = ("_hash", "_values")

    _hash: int
    _values: dict[str, int | str]

    def __init__(self, /, **knobs: int | str) -> None:
        _refuse_unknown(knobs)
        # In the order of the registry, so that plans with the same values are written alike.
        values = {n: knob.checked(knobs[n]) for n, knob in KNOBS.items() if n in knobs}
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_hash", hash(tuple(values.items())))

    @classmethod
    def from_dict(cls, knobs: Mapping[str, Any]) -> Self:
        """Read a plan as a table or a journal stores it; ``dict(plan)`` is what they store."""
        _refuse_unknown(knobs)
        return cls(**knobs)

    def number(self, knob: str) -> int | None:
        """The value of a knob that holds numbers; None where it is not set."""
        value = self._values.get(knob)
        assert not isinstance(value, str)
        return value

    def text(self, knob: str) -> str | None:
        """The value of a knob that holds names; None where it is not set."""
        value = self._values.get(knob)
        assert not isinstance(value, int)
        return value

    def __getitem__(self, name: str) -> int | str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        # `Mapping` has this by way of an exception, which takes half a microsecond of a step.
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    @property
    def tie_key(self) -> tuple[int | str, ...]:
        """By what tied plans are ordered, see `Knob.tie_rank`."""
        knobs = sorted(KNOBS.values(), key=lambda knob: knob.tie_rank)
        return tuple(knob.tie_key(self._values.get(knob.name)) for knob in knobs)

    def over(self, default: "Plan") -> "Plan":
        """Return this plan with the knobs that it leaves open taken from ``default``."""
        return Plan(**{**default, **self})

    def having(self, **knobs: int | str) -> "Plan":
        """Return this plan with ``knobs`` set to other values."""
        return Plan(**{**self, **knobs})

    def without(self, *names: str) -> "Plan":
        """Return this plan with the knobs ``names`` left as the backend has them."""
        return Plan(**{name: value for name, value in self.items() if name not in names})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Plan):
            return self._values == other._values
        return self._values == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"a plan cannot be changed: {name} = {value!r}")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError(f"a plan cannot be changed: del {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan.from_dict, (self._values,)

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.items()) or "no knobs"


def _refuse_unknown(knobs: Mapping[str, Any]) -> None:
    for name in knobs:
        if name not in KNOBS:
            raise InputError(f"unknown knob {name!r} in a plan", valid=", ".join(KNOBS))


UNTUNED = Plan()
"""The empty plan: the backend as it is."""
