"""Whether a table is true for the engine at hand, and which one to use if several are."""

__all__ = ["EngineFacts", "choose", "differences", "told_apart"]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mla_tune.registry import BACKENDS
from mla_tune.table import Table
from mla_tune.table.device_names import device_kind
from mla_tune.table.loading import LoadedTable
from mla_tune.table.software import compared


@dataclass(frozen=True)
class EngineFacts:
    """What an engine is, in the words of a table's header.

    Attributes:
        device_name, compute_capability, sm_count: as the driver gives them; the capability is
            None on a CPU.
        model: num_q_heads that the decode kernel on this GPU sees and the four MLA dimensions.
        kv_cache_dtype: vLLM's name, of the layers that the backend serves; 16-bit names that only
            repeat the activations' are ``auto``.
        quantization: of those layers' ``kv_b_proj``, as `mla_tune.quantization` names it.
        block_size: tokens in a block of their KV cache; None while that is not settled, and then
            it is not compared.
        vllm: the installed release.
        max_model_len: the longest sequence the engine admits; what one rank holds of it where
            the KV cache is spread over ranks.
        max_cudagraph_capture_size: the largest batch, in tokens, under a full graph; 0 without.
        packages: versions of the installed packages, beside vLLM, that kernels come with.
        digests: of the parts of the software that decide how fast the backend is, by name.
        context_parallel: ranks that each hold a part of a decode's KV cache. A decode kernel sees
            the heads of all of them, and KV lengths of one.
        index_topk: how many tokens a sparse backend attends to; None for a dense one.
    """

    backend: str
    device_name: str
    compute_capability: str | None
    sm_count: int
    model: tuple[tuple[str, int], ...]
    kv_cache_dtype: str
    quantization: str
    block_size: int | None
    vllm: str
    max_model_len: int
    max_cudagraph_capture_size: int
    packages: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...] = ()
    context_parallel: int = 1
    index_topk: int | None = None


def differences(table: Table, facts: EngineFacts) -> list[tuple[str, Any, Any]]:
    """Every field in which a table differs from the engine: name, table's value, engine's."""
    header = table.header
    installed = {"vllm": facts.vllm, **dict(facts.packages)}
    measured, found = compared(table, installed, dict(facts.digests))
    # A full graph holds decodes alone, which absorb kv_b_proj in 16 bits whatever it was.
    has_prefills = header.engine.mode == "eager"
    follows = BACKENDS[header.backend].follows_capture_size(header.engine.mode)
    captures = follows and facts.compute_capability is not None
    theirs = _comparable(
        backend=header.backend,
        device_name=header.device.name,
        compute_capability=header.device.compute_capability,
        sm_count=header.device.sm_count,
        model=tuple(header.model.items()),
        kv_cache_dtype=header.kv_cache_dtype,
        quantization=header.quantization if has_prefills else None,
        block_size=None if facts.block_size is None else header.full_engine.block_size,
        capture_size=header.full_engine.max_cudagraph_capture_size if captures else None,
        index_topk=header.engine.index_topk,
        software=measured,
    )
    ours = _comparable(
        backend=facts.backend,
        device_name=facts.device_name,
        compute_capability=facts.compute_capability,
        sm_count=facts.sm_count,
        model=facts.model,
        kv_cache_dtype=facts.kv_cache_dtype,
        quantization=facts.quantization if has_prefills else None,
        block_size=facts.block_size,
        capture_size=facts.max_cudagraph_capture_size if captures else None,
        index_topk=facts.index_topk,
        software=found,
    )
    return [
        (name, theirs.get(name), ours.get(name))
        for name in dict.fromkeys((*ours, *theirs))
        if theirs.get(name) != ours.get(name)
        and not (name == "GPU" and device_kind(theirs[name]) == device_kind(ours[name]))
    ]


def _comparable(
    *,
    backend: str,
    device_name: str,
    compute_capability: str | None,
    sm_count: int,
    model: Iterable[tuple[str, int]],
    kv_cache_dtype: str,
    quantization: str | None,
    block_size: int | None,
    capture_size: int | None,
    index_topk: int | None,
    software: dict[str, str],
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "backend": backend,
        **software,
        "GPU": device_name,
        "compute capability": compute_capability,
    }
    if compute_capability is not None:
        # On a CPU this is the number of threads, which is no property of the device.
        values["SM count"] = sm_count
    values.update(model)
    values["KV cache dtype"] = _plain_dtype(kv_cache_dtype)
    values["quantization"] = quantization
    values["block size"] = block_size
    values["max_cudagraph_capture_size"] = capture_size
    values["index_topk"] = index_topk
    return values


def _plain_dtype(name: str) -> str:
    # A 16-bit cache is what the activations are; fp8 is e4m3 wherever these kernels run.
    return {"fp8_e4m3": "fp8", "bfloat16": "auto"}.get(name, name)


def choose(
    tables: Iterable[LoadedTable], facts: EngineFacts
) -> tuple[dict[str, LoadedTable], str | None]:
    """Pick at most one table a mode for an engine.

    Of several that match, one measured at a locked SM clock is the last: an engine cannot tell
    where its GPU's clock is without putting load on it. Of the others the one whose max_model_len
    is nearest to the engine's wins, then the first by path. Returns the tables by mode and, when
    there are tables for a mode of which none matches, which fields of the nearest one differ.
    """
    scored = [(differences(loaded.table, facts), loaded) for loaded in tables]
    matching = sorted(
        (loaded for fields, loaded in scored if not fields),
        key=lambda loaded: (
            loaded.table.header.device.locked_sm_clock_mhz is not None,
            abs(loaded.table.header.engine.max_model_len - facts.max_model_len),
            str(loaded.path),
        ),
    )
    chosen: dict[str, LoadedTable] = {}
    for loaded in matching:
        chosen.setdefault(loaded.mode, loaded)
    left = [(fields, loaded) for fields, loaded in scored if loaded.mode not in chosen]
    if not left:
        return chosen, None
    fields, nearest = min(left, key=lambda item: len(item[0]))
    what = f"the nearest table for {nearest.mode} mode" if chosen else "the nearest table"
    return chosen, f"{what}, {nearest.path}, {_told(nearest.table, fields)}"


def _told(table: Table, fields: list[tuple[str, Any, Any]]) -> str:
    """In what a table differs from the engine; a digest's figures tell nobody anything."""
    digests = table.header.software_digests or {}
    parts = [name for name, _, _ in fields if name in digests]
    told = [
        f"{name} {value} (engine: {engine})"
        for name, value, engine in fields
        if name not in digests
    ]
    said = [f"is for {', '.join(told)}"] if told else []
    if parts:
        verb = "differs" if len(parts) == 1 else "differ"
        said.append(f"does not hold: {', '.join(parts)} {verb} from what was measured")
    return ", and ".join(said)


def told_apart(table: Table, facts: EngineFacts) -> str:
    """In what a table that is used may still differ from the engine, for the log; or nothing."""
    length = table.header.engine.max_model_len
    locked_mhz = table.header.device.locked_sm_clock_mhz
    told = f", measured at max_model_len {length}" if length != facts.max_model_len else ""
    if locked_mhz is not None:
        told += (
            f", measured with the SM clock locked at {locked_mhz} MHz: lock this GPU's there too"
        )
    return told
