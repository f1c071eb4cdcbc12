"""vLLM's own metadata builders on a machine without a GPU.

TRITON_MLA's need nothing but vLLM's CPU platform. FLASH_ATTN_MLA's ask for two functions of a CUDA
extension, which have stand-ins here: its builder passes their results on and looks at shapes alone.
"""

__all__ = [
    "flash_attention_stand_ins",
    "make_builder",
    "registered_builder",
    "with_gpu_units",
]

from collections.abc import Callable
from typing import Any

import torch

from mla_tune.registry import vllm_backend
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm.session.config import current_config
from mla_tune.vllm.session.parts import PREFIX, Parts, build_parts


def flash_attention_stand_ins(caps: list[int]) -> dict[str, Callable[..., Any] | None]:
    """Attributes for vLLM's ``fa_utils``, to set before FLASH_ATTN_MLA's module is imported.

    ``caps`` gets the split cap of each call of the scheduler.
    """

    def schedule(*, batch_size: int, num_splits: int, **_: object) -> torch.Tensor:
        caps.append(num_splits)
        return torch.full((1 + 4 * batch_size,), num_splits, dtype=torch.int32)

    return {
        "flash_attn_varlen_func": None,
        "get_scheduler_metadata": schedule,
        "get_flash_attn_version": lambda **_: 3,
        "flash_attn_supports_mla": lambda: True,
    }


def with_gpu_units() -> None:
    """Give vLLM's CPU platform the 132 units of an H200: TRITON_MLA splits by their number."""
    from vllm.platforms.cpu import CpuPlatform

    CpuPlatform.num_compute_units = classmethod(lambda *_: 132)


def make_builder(
    name: str, model: MlaDimensions, max_model_len: int, max_num_seqs: int, captures: list[int]
) -> tuple[Any, Parts]:
    """A builder of backend ``name`` beside a layer of TRITON_MLA, whose parts a CPU can make.

    Args:
        name: of the backend.
        model: dimensions, heads on one GPU.
        max_model_len: in tokens.
        max_num_seqs: the most requests of a batch.
        captures: batch sizes of the decode graphs.
    """
    setup = Setup("TRITON_MLA", model, max_model_len=max_model_len, max_num_requests=max_num_seqs)
    parts = build_parts(setup, vllm_backend(setup.backend))
    return registered_builder(name, parts, captures), parts


def registered_builder(name: str, parts: Parts, captures: list[int]) -> Any:
    """The builder of ``name`` as vLLM's registry has it now, in an engine with decode graphs."""
    from vllm.config import CUDAGraphMode
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    compilation = parts.vllm_config.compilation_config
    compilation.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
    compilation.cudagraph_capture_sizes = captures
    compilation.max_cudagraph_capture_size = max(captures)
    spec = parts.layer.get_kv_cache_spec(parts.vllm_config)
    builder_cls = AttentionBackendEnum[name].get_class().get_builder_cls()
    with current_config(parts.vllm_config):
        return builder_cls(spec, [PREFIX], parts.vllm_config, parts.device)
