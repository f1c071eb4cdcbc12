"""What a record of Optuna's journal may look like, in a study of ours."""

__all__ = ["CREATE_STUDY", "CREATE_TRIAL", "is_whole", "lost_study", "lost_trial"]

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mla_tune.errors import InputError
from mla_tune.plan.plan import Plan

# Numbers of optuna.storages.journal._storage.JournalOperation and TrialState (5.0.0).
CREATE_STUDY, CREATE_TRIAL = 0, 4
COMPLETE, FAIL, STATES = 1, 3, range(5)

Check = Callable[[Any], bool]


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # also false for NaN


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return False
    return True


def _is_distribution(value: Any) -> bool:
    """Ours is one over the values of a knob, or over the positions of plans (earlier versions)."""
    try:
        made = json.loads(value)
        attributes = made["attributes"]
        if made["name"] == "CategoricalDistribution":
            choices = attributes["choices"]
            return isinstance(choices, list) and all(type(c) in (int, str) for c in choices)
        low, high, is_log = attributes["low"], attributes["high"], attributes["log"]
        return (
            made["name"] == "IntDistribution"
            and _is_index(low)
            and _is_index(high)
            and (low < high if is_log is True else low == 0)
            and type(is_log) is bool
            and low >= is_log
            and attributes["step"] == 1
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return False


def _is_values(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 1 and _is_number(value[0]))


def _is_outcome(value: Any) -> bool:
    """As `Ledger.tell` stores it."""
    if not isinstance(value, dict) or value.keys() != {"knobs", "latency_us", "dropped", "rounds"}:
        return False
    try:
        Plan.from_dict(value["knobs"])
    except (InputError, AttributeError, TypeError, ValueError):
        return False
    latency_us, rounds = value["latency_us"], value["rounds"]
    return (
        _is_text(value["dropped"])
        and (latency_us is None or _is_latency(latency_us))
        and isinstance(rounds, list)
        and all(isinstance(cases, list) and all(map(_is_sample, cases)) for cases in rounds)
        and len({len(cases) for cases in rounds}) <= 1
    )


def _is_sample(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_latency(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_verdict(value: Any) -> bool:
    return isinstance(value, dict) and {"terms", "entry"} <= value.keys()


def _are_attributes(value: Any) -> bool:
    known: Mapping[str, Check] = {"outcome": _is_outcome, "verdict": _is_verdict}
    return isinstance(value, dict) and all(known[n](value[n]) for n in known.keys() & value.keys())


def _is_attribute(value: Any) -> bool:
    return _are_attributes(value) and len(value) == 1


def _is_mapping_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _are_steps(value: Any) -> bool:
    return _is_mapping_of(_is_number)(value) and all(key.isdecimal() for key in value)


_FIELDS: dict[int, dict[str, Check]] = {
    CREATE_STUDY: {"study_name": _is_text, "directions": lambda value: value == [1]},
    2: {"study_id": _is_index, "user_attr": _is_attribute},
    3: {"study_id": _is_index, "system_attr": _is_attribute},
    CREATE_TRIAL: {"study_id": _is_index, "datetime_start": lambda v: v is None or _is_time(v)},
    5: {
        "trial_id": _is_index,
        "param_name": _is_text,
        "param_value_internal": _is_number,
        "distribution": _is_distribution,
    },
    6: {"trial_id": _is_index, "state": lambda value: value in STATES, "values": _is_values},
    7: {"trial_id": _is_index, "step": _is_index, "intermediate_value": _is_number},
    8: {"trial_id": _is_index, "user_attr": _is_attribute},
    9: {"trial_id": _is_index, "system_attr": _is_attribute},
}
_OPTIONAL: dict[str, Check] = {
    "state": lambda value: type(value) is int and value in STATES,
    "value": lambda value: value is None or _is_number(value),
    "values": _is_values,
    "datetime_start": lambda value: value is None or _is_time(value),
    "datetime_complete": _is_time,
    "distributions": _is_mapping_of(_is_distribution),
    "params": _is_mapping_of(_is_number),
    "user_attrs": _are_attributes,
    "system_attrs": lambda value: isinstance(value, dict),
    "intermediate_values": _are_steps,
}
_OURS: dict[str, Check] = {
    "at": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_index, value)),
    "study": _is_text,
    "sum": _is_text,
}


def is_whole(record: Any) -> bool:
    """Whether Optuna can replay ``record`` and a ledger read what is in it."""
    if not isinstance(record, dict) or not _is_text(record.get("worker_id")):
        return False
    op_code = record.get("op_code")
    if type(op_code) is not int or op_code not in _FIELDS or ("sum" in record) != ("at" in record):
        return False
    required = _FIELDS[op_code]
    checks = _OPTIONAL | _OURS | required
    return (
        required.keys() <= record.keys()
        and all(checks[name](record[name]) for name in checks.keys() & record.keys())
        and _is_consistent(record)
    )


def _is_consistent(record: dict[str, Any]) -> bool:
    """Whether the fields of a trial fit together."""
    state = record.get("state")
    if state == COMPLETE and record.get("value") is None and not record.get("values"):
        return False
    if record["op_code"] != CREATE_TRIAL:
        needed = "datetime_complete" if state else "datetime_start"
        return state is None or _is_time(record.get(needed))
    if state is not None and state in (1, 2, FAIL) and "datetime_complete" not in record:
        return False
    params, distributions = record.get("params", {}), record.get("distributions", {})
    return params.keys() <= distributions.keys() and all(
        math.floor(value) == value and _holds(distributions[name], value)
        for name, value in params.items()
    )


def _holds(distribution: str, value: float) -> bool:
    attributes = json.loads(distribution)["attributes"]
    if "choices" in attributes:  # a category is stored by its position
        return 0 <= value < len(attributes["choices"])
    return bool(attributes["low"] <= value <= attributes["high"])


_LONG_AGO = "2000-01-01T00:00:00+00:00"


def lost_study(name: str) -> dict[str, Any]:
    """Stands where the creation of a study cannot be read."""
    return {"op_code": CREATE_STUDY, "worker_id": "lost", "study_name": name, "directions": [1]}


def lost_trial() -> dict[str, Any]:
    """Stands where a trial cannot be read: a failed one, which no ledger reads."""
    return {
        "op_code": CREATE_TRIAL,
        "worker_id": "lost",
        "study_id": 0,
        "datetime_start": _LONG_AGO,
        "datetime_complete": _LONG_AGO,
        "state": FAIL,
    }
