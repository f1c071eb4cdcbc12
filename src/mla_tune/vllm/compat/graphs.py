"""Which batches a release captures into CUDA graphs by itself."""

__all__ = ["captures_whole_decodes", "default_capture_size", "graph_capture_limit"]

from mla_tune.errors import InputError
from mla_tune.versions import release_numbers
from mla_tune.vllm import compat


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
    return default_capture_size(f"{capability_major}.0", ".".join(map(str, compat.release())))
