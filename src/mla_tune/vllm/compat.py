"""All that differs between vLLM releases, 0.20.2 to 0.33.0, and nothing else.

Line by line against the sources of 0.20.2, 0.26.0, 0.32.0 and 0.33.0. Where a feature can be asked
for (a parameter, an attribute), that decides and not the release number, so that a newer release
works as long as it still has what is used; if not, `UnavailableError` names what is missing.
"""

__all__ = [
    "OLDEST",
    "announce_topk",
    "attention_layer",
    "backend_class",
    "backend_source",
    "captures_whole_decodes",
    "common_metadata",
    "default_capture_size",
    "graph_capture_limit",
    "imports",
    "is_sparse",
    "module",
    "prefill_backend_of",
    "prefill_in_impl",
    "prefill_owner",
    "prefill_setting",
    "refresh_prefill",
    "release",
    "since",
    "sparse_decodes_uniform",
    "sparse_prefill_path",
    "supported_release",
    "symbol",
    "takes_fp8_queries",
    "triton_rule_is_a_function",
    "using_prefill",
]

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mla_tune.errors import InputError, UnavailableError
from mla_tune.versions import is_development_build, release_numbers
from mla_tune.vllm.observe import set_for_now

OLDEST = (0, 20, 2)
KNOWN = "0.20.2 to 0.33.0"

_MLA_LAYER = "vllm.model_executor.layers.attention.mla_attention"


def installed() -> str | None:
    """The version of the installed vLLM, or None."""
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None


def release() -> tuple[int, ...]:
    """The installed release as numbers, such as ``(0, 26, 0)``; empty when there is none."""
    version = installed()
    if version is None:
        return ()
    try:
        return release_numbers(version)
    except InputError as error:
        raise UnavailableError(error.what, valid=f"vLLM {KNOWN}") from None


def since(numbers: tuple[int, ...]) -> bool:
    """Whether the installed release is ``numbers`` or newer. Of no vLLM the newest is told."""
    found = release()
    return not found or found >= numbers


def supported_release() -> str | None:
    """Why the installed release cannot be driven, or None."""
    found = release()
    if not found:
        return "vLLM is not installed: pip install 'mla-tune[vllm]'"
    if found >= OLDEST:
        return None
    version = installed() or _dotted(found)
    if is_development_build(version):
        # setuptools-scm counts from 0.1 in a clone without tags.
        return f"vLLM {version} was built without git tags and does not say what release it is of"
    return f"vLLM {_dotted(found)} is older than {_dotted(OLDEST)}, the oldest that is driven"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def module(name: str) -> Any:
    """Import a module of vLLM.

    Raises:
        UnavailableError: this release does not have it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name, error) from error


def symbol(module_name: str, name: str) -> Any:
    """Import ``name`` from a module of vLLM. Raises as `module` does."""
    try:
        return getattr(module(module_name), name)
    except AttributeError as error:
        raise _missing(f"{module_name}.{name}", error) from error


def _missing(what: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"vLLM {_dotted(release())} has no {what} ({error})",
        valid=f"mla-tune was written against vLLM {KNOWN}",
        remedy="install one of those, or report this release",
    )


def imports(module: str) -> bool:
    """Whether a module imports; optional packages fail to in many ways."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def backend_source(name: str) -> Path | None:
    """The file of ``vllm/v1/attention/backends/mla/<name>.py``, without importing vLLM."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "v1/attention/backends/mla" / f"{name}.py"
    return path if path.exists() else None


def backend_class(name: str) -> Any:
    """VLLM's class of the backend ``name``.

    Raises:
        UnavailableError: this release has no such backend, or it does not import here.
    """
    registry = symbol("vllm.v1.attention.backends.registry", "AttentionBackendEnum")
    try:
        return registry[name].get_class()
    except (KeyError, ValueError) as error:
        raise UnavailableError(f"vLLM {_dotted(release())} has no backend {name}") from error
    except Exception as error:
        # A missing extension surfaces as ImportError, AssertionError or RuntimeError.
        raise UnavailableError(
            f"{name} of vLLM {_dotted(release())} does not import: {error}"
        ) from error


def triton_rule_is_a_function() -> bool:
    """Whether TRITON_MLA's split rule is a function; ``forward_mqa`` had it written out before."""
    return release() >= (0, 26)


def captures_whole_decodes(vllm: str) -> bool:
    """Whether a release of this version adds sizes for whole requests to those it captures.

    0.26 captures multiples of 8 and 16 tokens alone; 0.32 adds ``max_num_seqs``, and with draft
    tokens the multiples of a request's tokens. The releases between are not known here.
    """
    try:
        return release_numbers(vllm) >= (0, 32, 0)
    except InputError:
        return True  # no version at all: as the newest


def default_capture_size(compute_capability: str, vllm: str) -> int:
    """``max_cudagraph_capture_size`` of an engine of 256 sequences or more that says nothing.

    vLLM derives it from ``max_num_seqs`` up to a limit, which 0.32 raised on compute capability 10.
    """
    try:
        numbers = release_numbers(vllm)
    except InputError:
        return 512  # like no other release, so nothing is compared with it
    return 1024 if compute_capability.startswith("10.") and numbers >= (0, 32, 0) else 512


def graph_capture_limit(capability_major: int) -> int:
    """Largest batch, in tokens, that vLLM captures by default with 256 sequences or more."""
    return default_capture_size(f"{capability_major}.0", _dotted(release()))


def attention_layer(backend_cls: Any, arguments: Mapping[str, Any], indexer: Any | None) -> Any:
    """Construct the real `MLAAttention`.

    0.20 finds its backend through ``attention_config.backend``; later ones are told. Sparse
    layers take the top-k buffer by itself since 0.26.
    """
    layer_cls = symbol(_MLA_LAYER, "MLAAttention")
    offered = inspect.signature(layer_cls.__init__).parameters
    extra: dict[str, Any] = {}
    if "attn_backend" in offered:
        extra["attn_backend"] = backend_cls
    if indexer is not None:
        extra |= {"use_sparse": True, "indexer": indexer}
        if "topk_indices_buffer" in offered:
            extra["topk_indices_buffer"] = indexer.topk_indices_buffer
    return layer_cls(**arguments, **extra)


def takes_fp8_queries(layer: Any) -> bool:
    """Whether the layer rounds decode queries to fp8, as ``MLAAttention.forward_impl`` decides.

    TRITON_MLA and the sparse FLASHMLA read an fp8 cache with 16-bit queries.
    """
    quantized = str(layer.kv_cache_dtype).startswith("fp8")
    return quantized and bool(getattr(layer.impl, "supports_quant_query_input", False))


def is_sparse(impl: Any) -> bool:
    """Whether ``impl`` attends to top-k tokens. 0.20 tells by a base class."""
    if hasattr(impl, "is_sparse"):
        return bool(impl.is_sparse)
    return isinstance(impl, symbol("vllm.v1.attention.backend", "SparseMLAAttentionImpl"))


def sparse_decodes_uniform(builder: Any) -> bool:
    """Whether a sparse builder takes only requests of one query length as decodes."""
    return bool(getattr(builder, "require_uniform_decodes", True))


def announce_topk(impl: Any) -> None:
    """Tell the impl that the top-k indices are written, as an indexer does.

    0.32 and later convert them on a side stream behind this event; a capture would fail without.
    """
    group: Any = getattr(impl, "index_group", None)
    if hasattr(group, "set_logical_topk_ready"):
        group.set_logical_topk_ready(impl.index_group_index)


def sparse_prefill_path(layer: Any) -> str:
    """What a sparse backend does with prefill tokens whose context is within the top-k.

    ``mqa``: they take the sparse kernel like all others (0.20, and no prefill backend). ``mha``:
    dense attention. ``either``: on compute capability 10 newer releases decide by a table of
    their own (``_use_masked_mha``).
    """
    if getattr(layer, "prefill_backend", None) is None:
        return "mqa"
    return "either" if getattr(layer.impl, "masked_mha_available", False) else "mha"


def common_metadata(**fields: Any) -> Any:
    """`CommonAttentionMetadata`, with those of ``fields`` that this release has."""
    try:
        cls = symbol("vllm.v1.attention.backend", "CommonAttentionMetadata")
    except UnavailableError:
        cls = symbol("vllm.v1.attention.backends.utils", "CommonAttentionMetadata")
    known = {field.name for field in dataclasses.fields(cls)}
    # Private copies of the lengths went away after 0.26; they spared a device-to-host copy.
    return cls(**{name: value for name, value in fields.items() if name in known})


# Prefill backends. From 0.26 (0.22 in truth) they are objects: the builder's `_prefill_backend`
# goes into each batch's metadata, and may differ from batch to batch. 0.20 decides once per
# process, behind functools.cache, and writes the choice into the impl: only the default is
# offered there, because an engine of that release could not be told anything per shape either.


def prefill_backend_of(builder: Any) -> Any | None:
    """The prefill backend object that ``builder`` uses; None in 0.20 and where there is none."""
    return getattr(builder, "_prefill_backend", None)


def prefill_in_impl(impl: Any) -> str | None:
    """The short name of the prefill implementation that 0.20 wrote into ``impl``, if any."""
    run = getattr(impl, "_run_prefill_new_tokens", None)
    if run is None:
        return None
    kind = str(run.__name__).removeprefix("_run_prefill_new_tokens_")
    if kind == "fa":
        return f"fa{impl.vllm_flash_attn_version}"
    return {"fi": "flashinfer", "trtllm_ragged": "trtllm"}.get(kind, kind)


@contextmanager
def using_prefill(builder: Any, instance: Any | None) -> Iterator[None]:
    """Have ``builder`` put ``instance`` into the metadata it builds."""
    if instance is None:
        yield
        return
    with set_for_now(builder, "_prefill_backend", instance):
        yield


def refresh_prefill(builder: Any, metadata: Any) -> None:
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


def prefill_owner(impl: Any, metadata: Any) -> tuple[Any, str]:
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


def prefill_setting(name: str, member: str | None, numbers: tuple[int, ...]) -> str | None:
    """How the release ``numbers`` is told to prefill with ``name``; None: it cannot be told.

    ``member`` is its name in vLLM's registry of prefill backends.
    """
    if numbers < (0, 22, 0):
        return _PREFILL_SETTINGS.get(name)
    return None if member is None else f"mla_prefill_backend={member}"
