"""The options of `mla_tune.tune`, and the run's options from them."""

__all__ = ["AnyPath", "TuneOptions", "run_options"]

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from mla_tune.errors import InputError
from mla_tune.tuning.run_options import RunOptions

AnyPath = str | os.PathLike[str]
One = TypeVar("One", str, int)


class TuneOptions(TypedDict, total=False):
    """What may be given to `mla_tune.tune`, each with the command's own default.

    Attributes:
        backends: backends to tune, in vLLM's names; without any, those that ``shapes`` lists.
        out: folder of the tables.
        study_dir: folder of the journals a run resumes from; None is one in the user's state
            folder.
        storage: the URL of a PostgreSQL database for the studies, which several runs may share; or
            a folder, as ``study_dir``.
        units: ``I/N`` tunes part I of N of the batch shapes; each part has studies of its own.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU where there is one.
        devices: ``all``, or GPUs with commas between them, such as ``0,1``: each batch shape is
            tuned on one of them. Not together with ``device``.
        ray: the address of a Ray cluster, or ``auto`` for the one that this host is in: on all its
            GPUs, or on its processors with ``device="cpu"``.
        max_tokens: leave out batch shapes of more KV tokens than this, over all their requests.
        tensor_parallel_size: how many GPUs share the heads, once or several times; without any, as
            ``shapes`` says.
        min_speedup: publish a plan only when the lower end of its 95 % interval is above this
            factor of the default's speed; None is 1.01, and 1.05 on a CPU.
        confirm_seconds: most seconds that comparing a shape's best plans to the default takes.
        processes: in how many processes, one after another, a plan is raced against the default
            before it is published; 1 leaves it at the one that found it.
        launches: for a backend whose kernel's launch can be set, how many launches are tried:
            ``none`` but vLLM's own, the best ``few`` of a search on three batch shapes, or ``all``
            with every split count; None is ``few`` for graph tables and ``none`` for eager ones.
        guard: up to which KV lengths a graph's entry must not be slower than the default:
            ``longest`` that the engine serves, or those ``served`` in the record.
        guard_share: with ``guard="served"``, the share of a batch size's recorded steps that may
            have longer requests than the plan was compared on.
        served: with ``guard="served"``, what an engine has written with ``MLA_TUNE_RECORD``.
        sample_timeout: seconds after which a sample counts as hung.
        plan_timeout: seconds that compiling and checking a plan may take.
        record: a file that also keeps every sample taken (gzip where its name ends in ``.gz``).
        record_rounds: record so many samples of every plan, side by side.
        recording: with ``backends="RECORDED"``: play back the samples of this file.
        replace: put a table aside that is for another device, release or setting, and begin
            another in its place.
        again: measure anew what an earlier run has decided; its entries stay in the table until
            then, and its trials in the journal.
        wait: wait for a device that another run is measuring on, where this raises otherwise.
    """

    backends: str | Sequence[str]
    out: AnyPath
    study_dir: AnyPath | None
    storage: str | None
    units: str | None
    device: str
    devices: str | None
    ray: str | None
    max_tokens: int | None
    tensor_parallel_size: int | Sequence[int]
    min_speedup: float | None
    confirm_seconds: float
    processes: int
    launches: str | None
    guard: str
    guard_share: float
    served: AnyPath | None
    sample_timeout: float
    plan_timeout: float
    record: AnyPath | None
    record_rounds: int
    recording: AnyPath | None
    replace: bool
    again: bool
    wait: bool


def run_options(shapes: AnyPath | Mapping[str, Any] | None, options: TuneOptions) -> RunOptions:
    """The options of a run, from what was given in Python.

    Raises:
        InputError: a value that cannot be used; names the option and what is valid.
        TypeError: an option that there is not.
    """
    given = {
        name: _READERS[name](name, value) if name in _READERS else value
        for name, value in options.items()
    }
    place = shapes if isinstance(shapes, Mapping) else _path("shapes", shapes)
    made: Callable[..., RunOptions] = RunOptions
    return made(shapes=place, **given)


def _path(option: str, value: AnyPath | None) -> Path | None:
    if value is None:
        return None
    try:
        return Path(value)
    except TypeError:
        raise InputError(f"{option} is {value!r:.80}", valid="a path") from None


def _tuple(option: str, values: One | Sequence[One], kind: type[One]) -> tuple[One, ...]:
    """One value or several; a word alone is one value, not a sequence of letters."""
    given = (values,) if isinstance(values, kind) else values
    if isinstance(given, Sequence) and all(isinstance(value, kind) for value in given):
        return tuple(given)
    names = {str: "a name or a list of names", int: "a whole number or a list of them"}
    raise InputError(f"{option} is {values!r:.80}", valid=names[kind])


def _folder(option: str, value: AnyPath | None) -> Path:
    return _path(option, value) or RunOptions.out


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "backends": partial(_tuple, kind=str),
    "tensor_parallel_size": partial(_tuple, kind=int),
    "out": _folder,
    "study_dir": _path,
    "served": _path,
    "record": _path,
    "recording": _path,
    "device": lambda _option, value: str(value),
}
