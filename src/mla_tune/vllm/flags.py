"""What a table amounts to in flags and variables that vLLM itself offers, and what is left over."""

__all__ = ["VllmArgs", "vllm_args"]

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.printable import printable
from mla_tune.table import Entry, Table
from mla_tune.versions import minor_release, release_numbers

# The oldest release these spellings were read in, and the first with prefill backends by name.
OLDEST = (0, 20, 0)
PREFILL_BACKENDS_BY_NAME = (0, 22, 0)

CAP = "flash_attn_max_num_splits_for_cuda_graph"
_PREFILL_NAMED = {
    "flashinfer": "mla_prefill_backend=FLASHINFER",
    "trtllm": "mla_prefill_backend=TRTLLM_RAGGED",
    "tokenspeed": "mla_prefill_backend=TOKENSPEED_MLA",
}
_PREFILL_FLAGS = {
    "flashinfer": "disable_flashinfer_prefill=false",
    "trtllm": "use_trtllm_ragged_deepseek_prefill=true",
    "cudnn": "use_cudnn_prefill=true",
}


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
    if version is None:
        raise InputError(
            f"{path} was measured without vLLM ({header.backend})",
            remedy="it has no meaning for an engine; name a table of a vLLM backend",
        )
    release = release_numbers(version)
    if release < OLDEST:
        raise InputError(f"vLLM {version} is not known here", valid="0.20.2 or newer")
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
    _translate_splits(table, flags, environment, left_over)
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


def _translate_splits(
    table: Table, flags: list[str], environment: list[str], left_over: list[str]
) -> None:
    backend, mode = table.header.backend, table.header.engine.mode
    named = [entry for entry in table.entries if _values(entry, "num_kv_splits") - {None}]
    if not named:
        return
    if backend == "TRITON_MLA":
        left_over.append("num_kv_splits of TRITON_MLA: no release has a flag for it")
        return
    best, losing = _best(named, "num_kv_splits")
    if backend == "FLASH_ATTN_MLA" and mode == "graph":
        spelled, where = f"--attention-config.{CAP}={best}", flags
    elif backend == "CUTLASS_MLA":
        spelled, where = f"FORCE_NUM_KV_SPLITS={best}", environment
    else:
        left_over.append(f"num_kv_splits of {backend} in {mode} mode: there is no flag for it")
        return
    if losing:
        told = ", ".join(losing)
        left_over.append(f"num_kv_splits by batch; {spelled} alone is not proven for {told}")
    elif best is not None:
        where.append(spelled)


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
    if name in {"fa2", "fa3", "fa4"}:
        flags.append(f"--attention-config.flash_attn_version={name[2]}")
        if name != "fa3" and table.header.device.compute_capability == "9.0":
            left_over.append(
                f"flash_attn_version={name[2]} also turns off FLASH_ATTN_MLA's decode schedule "
                "on compute capability 9.0; the plugin changes the prefill alone"
            )
        return
    by_name = release >= PREFILL_BACKENDS_BY_NAME
    spelled = (_PREFILL_NAMED if by_name else _PREFILL_FLAGS).get(name)
    if spelled is None:
        left_over.append(f"prefill_backend {name}: this release has no flag for it")
    else:
        flags.append(f"--attention-config.{shlex.quote(spelled)}")


def _values(entry: Entry, knob: str) -> set[int | str | None]:
    """What the plan and its ties say of ``knob``; None is the default."""
    plans = (entry.plan, *entry.ties)
    return {plan.get(knob) if plan is not None else None for plan in plans}


def _best(entries: list[Entry], knob: str) -> tuple[int | str | None, list[str]]:
    """The value good for most of the weight, and the shapes it is not known to be good for."""
    weights: dict[int | str | None, float] = {}
    for entry in entries:
        for value in _values(entry, knob):
            weights[value] = weights.get(value, 0.0) + entry.weight
    best = max(weights, key=lambda value: (weights[value], str(value)))
    return best, [entry.shape for entry in entries if best not in _values(entry, knob)]
