"""Whether a table is true for the engine at hand, and which one to use if several are."""

__all__ = ["EngineFacts", "choose", "differences"]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mla_tune.domains import DOMAINS
from mla_tune.runtime.tables import LoadedTable
from mla_tune.table import Table
from mla_tune.versions import minor_release


@dataclass(frozen=True)
class EngineFacts:
    """What an engine is, in the words of a table's header.

    Attributes:
        device_name, compute_capability, sm_count: as the driver gives them; the capability is
            None on a CPU.
        model: num_q_heads on this GPU and the four MLA dimensions.
        kv_cache_dtype: vLLM's name; 16-bit names that only repeat the activations' are ``auto``.
        vllm: the installed release.
        max_model_len: the longest sequence the engine admits.
        packages: versions of the installed packages, beside vLLM, that kernels come with.
    """

    backend: str
    device_name: str
    compute_capability: str | None
    sm_count: int
    model: tuple[tuple[str, int], ...]
    kv_cache_dtype: str
    vllm: str
    max_model_len: int
    packages: tuple[tuple[str, str], ...] = ()


def differences(table: Table, facts: EngineFacts) -> list[tuple[str, Any, Any]]:
    """Every field in which a table differs from the engine: name, table's value, engine's."""
    header = table.header
    packages = _packages(table)
    installed = dict(facts.packages)
    theirs = _comparable(
        backend=header.backend,
        device_name=header.device.name,
        compute_capability=header.device.compute_capability,
        sm_count=header.device.sm_count,
        model=tuple(header.model.items()),
        kv_cache_dtype=header.kv_cache_dtype,
        vllm=header.software.get("vllm", "none"),
        packages={name: header.software.get(name, "none") for name in packages},
    )
    ours = _comparable(
        backend=facts.backend,
        device_name=facts.device_name,
        compute_capability=facts.compute_capability,
        sm_count=facts.sm_count,
        model=facts.model,
        kv_cache_dtype=facts.kv_cache_dtype,
        vllm=facts.vllm,
        packages={name: installed.get(name, "none") for name in packages},
    )
    return [
        (name, theirs.get(name), ours.get(name))
        for name in dict.fromkeys((*ours, *theirs))
        if theirs.get(name) != ours.get(name)
    ]


def _comparable(
    *,
    backend: str,
    device_name: str,
    compute_capability: str | None,
    sm_count: int,
    model: Iterable[tuple[str, int]],
    kv_cache_dtype: str,
    vllm: str,
    packages: dict[str, str],
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "backend": backend,
        "vLLM release": minor_release(vllm),
        "GPU": device_name,
        "compute capability": compute_capability,
    }
    if compute_capability is not None:
        # On a CPU this is the number of threads, which is no property of the device.
        values["SM count"] = sm_count
    values.update(model)
    values.update({f"{name} release": minor_release(packages[name]) for name in packages})
    values["KV cache dtype"] = _plain_dtype(kv_cache_dtype)
    return values


def _packages(table: Table) -> list[str]:
    """The packages whose version decides what the table's plans are worth.

    Triton compiles TRITON_MLA's decode anew in every engine, and FlashInfer's kernels are in its
    own wheel: a release of either can move the best plan with vLLM as it was. Their minor
    releases count, as vLLM's do.
    """
    domain = DOMAINS[table.header.backend]
    named = [plan for entry in table.entries for _, plan in entry.plans() if plan is not None]
    return sorted(domain.packages(named))


def _plain_dtype(name: str) -> str:
    # A 16-bit cache is what the activations are; fp8 is e4m3 wherever these kernels run.
    return {"fp8_e4m3": "fp8", "bfloat16": "auto"}.get(name, name)


def choose(
    tables: Iterable[LoadedTable], facts: EngineFacts
) -> tuple[dict[str, LoadedTable], str | None]:
    """Pick at most one table a mode for an engine.

    Of several that match, the one whose max_model_len is nearest to the engine's wins, then the
    first by path. Returns the tables by mode and, when none matches, which fields of the nearest
    one differ.
    """
    scored = [(differences(loaded.table, facts), loaded) for loaded in tables]
    matching = sorted(
        (loaded for fields, loaded in scored if not fields),
        key=lambda loaded: (
            abs(loaded.table.header.engine.max_model_len - facts.max_model_len),
            str(loaded.path),
        ),
    )
    chosen: dict[str, LoadedTable] = {}
    for loaded in matching:
        chosen.setdefault(loaded.mode, loaded)
    if chosen or not scored:
        return chosen, None
    fields, nearest = min(scored, key=lambda item: len(item[0]))
    told = ", ".join(f"{name} {table} (engine: {engine})" for name, table, engine in fields)
    return {}, f"the nearest table, {nearest.path}, is for {told}"
