"""Where a release keeps its prefill backend, and how it is told another.

From 0.22 on they are objects: the builder's ``_prefill_backend`` goes into each batch's metadata,
and may differ from batch to batch. 0.20 decides once per process, behind functools.cache, and
writes the choice into the impl: only the default is offered there, because an engine of that
release could not be told anything per shape either.
"""

__all__ = ["backend_of", "in_impl", "owner_of", "refresh", "setting", "using"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mla_tune.vllm.observe import set_for_now


def backend_of(builder: Any) -> Any | None:
    """The prefill backend object that ``builder`` uses; None in 0.20 and where there is none."""
    return getattr(builder, "_prefill_backend", None)


def in_impl(impl: Any) -> str | None:
    """The short name of the prefill implementation that 0.20 wrote into ``impl``, if any."""
    run = getattr(impl, "_run_prefill_new_tokens", None)
    if run is None:
        return None
    kind = str(run.__name__).removeprefix("_run_prefill_new_tokens_")
    if kind == "fa":
        return f"fa{impl.vllm_flash_attn_version}"
    return {"fi": "flashinfer", "trtllm_ragged": "trtllm"}.get(kind, kind)


@contextmanager
def using(builder: Any, instance: Any | None) -> Iterator[None]:
    """Have ``builder`` put ``instance`` into the metadata it builds."""
    if instance is None:
        yield
        return
    with set_for_now(builder, "_prefill_backend", instance):
        yield


def refresh(builder: Any, metadata: Any) -> None:
    """Hand a batch's prefill metadata to its backend again.

    Prefill backends keep the metadata of the batch built last, and other batches may have been
    built since.
    """
    prefill = getattr(metadata, "prefill", None)
    if prefill is None:
        return
    instance = getattr(prefill, "prefill_backend", None)
    if instance is not None:
        instance.prepare_metadata(prefill)
    elif getattr(builder, "_use_fi_prefill", False):
        builder._build_fi_prefill_wrappers(prefill)


def owner_of(impl: Any, metadata: Any) -> tuple[Any, str]:
    """The object and the name of its method that attends to a batch's new prefill tokens."""
    instance = getattr(metadata.prefill, "prefill_backend", None)
    if instance is not None:
        return instance, "run_prefill_new_tokens"
    return impl, "_run_prefill_new_tokens"


# vLLM's own settings for a prefill backend, below --attention-config, before they had names.
_PREFILL_SETTINGS = {
    "flashinfer": "disable_flashinfer_prefill=false",
    "trtllm": "use_trtllm_ragged_deepseek_prefill=true",
    "cudnn": "use_cudnn_prefill=true",
}


def setting(name: str, member: str | None, numbers: tuple[int, ...]) -> str | None:
    """How the release ``numbers`` is told to prefill with ``name``; None: it cannot be told.

    ``member`` is its name in vLLM's registry of prefill backends.
    """
    if numbers < (0, 22, 0):
        return _PREFILL_SETTINGS.get(name)
    return None if member is None else f"mla_prefill_backend={member}"
