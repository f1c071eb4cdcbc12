"""The dimensions of multi-head latent attention."""

__all__ = ["KnownModel", "MlaDimensions"]

from dataclasses import dataclass, replace

from mla_tune.errors import InputError


@dataclass(frozen=True)
class MlaDimensions:
    """The attention layer as one GPU holds it.

    ``num_q_heads`` is per GPU: the model's heads divided by the tensor-parallel size. The
    latent cache holds ``kv_lora_rank + qk_rope_head_dim`` values a token, shared by all heads.
    A model without rotary positions has a ``qk_rope_head_dim`` of 0.
    """

    num_q_heads: int
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128

    @property
    def latent_dim(self) -> int:
        """Values per token in the KV cache."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(qk_head_dim), as DeepSeek-V2 (arXiv:2405.04434) without YaRN's correction."""
        return float(self.qk_head_dim**-0.5)

    def sharded(self, tensor_parallel_size: int) -> "MlaDimensions":
        """Return the dimensions that one of ``tensor_parallel_size`` GPUs holds.

        Raises:
            InputError: the heads do not divide evenly, which vLLM refuses as well.
        """
        if tensor_parallel_size < 1 or self.num_q_heads % tensor_parallel_size:
            fits = [n for n in range(1, self.num_q_heads + 1) if self.num_q_heads % n == 0]
            raise InputError(
                f"tensor-parallel size {tensor_parallel_size} does not divide "
                f"{self.num_q_heads} heads",
                valid=", ".join(map(str, fits)),
            )
        return replace(self, num_q_heads=self.num_q_heads // tensor_parallel_size)


@dataclass(frozen=True)
class KnownModel:
    """What is known of a whole model.

    Attributes:
        dimensions: with all its heads, before they are divided among GPUs.
        index_topk: how many tokens its indexer picks; None for dense attention.
        notice: what was taken from elsewhere than the model itself, for the user; or empty.
    """

    dimensions: MlaDimensions
    index_topk: int | None = None
    notice: str = ""
