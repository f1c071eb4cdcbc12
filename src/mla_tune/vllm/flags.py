"""What a table amounts to in flags and variables that vLLM itself offers, and what is left over."""

__all__ = ["VllmArgs", "vllm_args"]

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.plan.knob import KNOBS, Knob
from mla_tune.printable import printable
from mla_tune.registry import BACKENDS, vllm_backend
from mla_tune.table import Entry, Table
from mla_tune.versions import minor_release, release_numbers
from mla_tune.vllm.compat import OLDEST
from mla_tune.vllm.prefill import engine_setting, turns_off_decode_schedule


@dataclass(frozen=True)
class VllmArgs:
    """Flags and environment variables for one table, and what they cannot say."""

    title: str
    environment: tuple[str, ...]
    flags: tuple[str, ...]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        # For pasting: a name from the table must not end its comment.
        lines = [f"# {printable(self.title)}", *self.environment, *self.flags]
        if self.left_over:
            lines += ["# not expressed by these (the plugin does it: MLA_TUNE_TABLES):"]
            lines += [f"#   {printable(line)}" for line in self.left_over]
        return "\n".join(lines)


def vllm_args(tables: Iterable[Path], vllm_version: str | None = None) -> list[VllmArgs]:
    """Translate each table for ``vllm_version``, or for the release it was measured on.

    A value is only given where no measured shape is known to lose by it: it is the plan, or tied
    with it, of every entry that the flag acts on.

    Raises:
        InputError: a table that cannot be read, or a release these spellings are not known for.
    """
    return [_translated(Path(path), Table.load(path), vllm_version) for path in tables]


def _translated(path: Path, table: Table, vllm_version: str | None) -> VllmArgs:
    header = table.header
    version = vllm_version or header.software.get("vllm")
    if version is None or not BACKENDS[header.backend].is_vllm:
        raise InputError(
            f"{path} was measured without vLLM ({header.backend})",
            remedy="it has no meaning for an engine; name a table of a vLLM backend",
        )
    release = release_numbers(version)
    if release < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InputError(f"vLLM {version} is not known here", valid=f"{oldest} or newer")
    title = (
        f"{path}: {header.backend} on {header.device.name}, {header.model['num_q_heads']} heads, "
        f"KV dtype {header.kv_cache_dtype}, {header.engine.mode} mode, for vLLM {version}"
    )
    left_over = []
    measured = header.software.get("vllm", version)
    if minor_release(measured) != minor_release(version):
        left_over.append(f"measured on vLLM {measured}: tune again for {version}")
    flags = [f"--attention-backend {shlex.quote(header.backend)}"]
    environment: list[str] = []
    _translate_settings(table, flags, left_over)
    for name, knob in KNOBS.items():
        if name not in ("reorder_batch_threshold", "prefill_backend"):
            _translate_knob(knob, table, flags, environment, left_over)
    _translate_prefill(table, release, flags, left_over)
    if any(_values(entry, "reorder_batch_threshold") - {None} for entry in table.entries):
        left_over.append("reorder_batch_threshold: no release has a flag for it")
    return VllmArgs(title, tuple(environment), tuple(flags), tuple(left_over))


def _translate_settings(table: Table, flags: list[str], left_over: list[str]) -> None:
    """What the engine has to be told to be the one that the table was measured for."""
    settings = dict(table.header.own_settings)
    weights = settings.pop("quantization", None)
    if weights is not None:
        left_over.append(
            f"measured with weights of kv_b_proj quantized as {weights}: the checkpoint has to "
            "bring them"
        )
    flags += [f"--{name.replace('_', '-')} {value}" for name, value in settings.items()]


def _translate_knob(
    knob: Knob, table: Table, flags: list[str], environment: list[str], left_over: list[str]
) -> None:
    backend, mode = vllm_backend(table.header.backend), table.header.engine.mode
    named = [entry for entry in table.entries if _values(entry, knob.name) - {None}]
    if not named:
        return
    setting = backend.setting(knob)
    if setting is None:
        left_over.append(f"{knob.name} of {backend.name}: no release has a flag for it")
        return
    if mode not in setting.modes:
        left_over.append(f"{knob.name} of {backend.name} in {mode} mode: there is no flag for it")
        return
    best, losing = _best(named, knob.name)
    spelled = setting.spelled.format(best)
    if losing:
        told = ", ".join(losing)
        left_over.append(f"{knob.name} by batch; {spelled} alone is not proven for {told}")
    elif best is not None:
        (environment if setting.is_variable else flags).append(spelled)


def _translate_prefill(
    table: Table, release: tuple[int, int, int], flags: list[str], left_over: list[str]
) -> None:
    named = [entry for entry in table.entries if _values(entry, "prefill_backend") - {None}]
    if not named:
        return
    best, losing = _best(named, "prefill_backend")
    if losing:
        left_over.append(f"prefill_backend by batch; {best} is not proven for {', '.join(losing)}")
        return
    if best is None:
        return
    name = str(best)
    spelled = engine_setting(name, release)
    if spelled is None:
        left_over.append(f"prefill_backend {name}: this release has no flag for it")
        return
    flags.append(f"--attention-config.{shlex.quote(spelled)}")
    if table.header.device.compute_capability == "9.0" and turns_off_decode_schedule(name):
        left_over.append(
            f"{spelled} also turns off FLASH_ATTN_MLA's decode schedule on compute capability "
            "9.0; the plugin changes the prefill alone"
        )


def _values(entry: Entry, knob: str) -> set[int | str | None]:
    """What the plan and its ties say of ``knob``; None is the default."""
    plans = (entry.plan, *entry.ties)
    return {plan.get(knob) for plan in plans}


def _best(entries: list[Entry], knob: str) -> tuple[int | str | None, list[str]]:
    """The value good for most of the weight, and the shapes it is not known to be good for."""
    weights: dict[int | str | None, float] = {}
    for entry in entries:
        for value in _values(entry, knob):
            weights[value] = weights.get(value, 0.0) + entry.weight
    best = max(weights, key=lambda value: (weights[value], str(value)))
    return best, [entry.shape for entry in entries if best not in _values(entry, knob)]
