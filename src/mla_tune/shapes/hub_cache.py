"""Models in the local cache of Hugging Face's hub. Nothing is ever downloaded."""

__all__ = ["cached_config"]

from pathlib import Path


def cached_config(name: str) -> Path | None:
    """The config.json of the model ``owner/name`` in the local cache, or None.

    Looked up by huggingface_hub, which comes with vLLM; without it there is no cache to look in.
    """
    owner, slash, _ = name.partition("/")
    if not slash or not owner or name.count("/") > 1:
        return None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, "config.json")
    except (ValueError, OSError):  # of names that no model of the hub can have
        return None
    return Path(found) if isinstance(found, str) else None
