"""Multi-head latent attention in float64, from the latents as the cache stores them."""

__all__ = ["Projections", "attend", "attend_up_projected", "reference_rows", "rounded_to_fp8"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_ROWS = 64
TOKENS_AT_ONCE = 1024

Rounding = Callable[["torch.Tensor"], "torch.Tensor"]
UpProjection = Callable[["torch.Tensor"], tuple["torch.Tensor", "torch.Tensor"]]


@dataclass(frozen=True)
class Projections:
    """``kv_b_proj`` taken apart, in float64.

    ``w_uk`` is ``[num_q_heads, qk_nope_head_dim, kv_lora_rank]``, ``w_uv`` is ``[num_q_heads,
    v_head_dim, kv_lora_rank]``.
    """

    w_uk: "torch.Tensor"
    w_uv: "torch.Tensor"

    @classmethod
    def of(cls, weight: "torch.Tensor", num_heads: int, nope_dim: int) -> "Projections":
        """Split a weight ``[num_q_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]``."""
        heads = weight.double().view(num_heads, -1, weight.shape[-1])
        return cls(heads[:, :nope_dim], heads[:, nope_dim:])


def rounded_to_fp8(query: "torch.Tensor", dtype: "torch.dtype", q_scale: float) -> "torch.Tensor":
    """An absorbed query as the layer hands it to a kernel that takes it in fp8.

    ``MLAAttention.forward_impl`` absorbs it in ``dtype`` and rounds it to e4m3 of ``q_scale``,
    with saturation (``_DecodeConcatQuantFP8``); `attend` sees the values that this leaves.
    """
    import torch

    e4m3 = torch.float8_e4m3fn
    largest = torch.finfo(e4m3).max
    scaled = (query.to(dtype).float() / q_scale).clamp(-largest, largest)
    return scaled.to(e4m3).double() * q_scale


def attend(
    query: "torch.Tensor",
    latents: "torch.Tensor",
    projections: Projections,
    scale: float,
    rounded: Rounding | None = None,
) -> "torch.Tensor":
    """Query tokens over the latents that each may see; of one, or of several that see alike many.

    The up-projections are moved onto query and result, which in float64 is the same and needs no
    keys and values of the whole context.

    Args:
        query: ``[..., num_q_heads, qk_nope_head_dim + qk_rope_head_dim]``.
        latents: ``[..., num_tokens, kv_lora_rank + qk_rope_head_dim]``, float64.
        scale: of the softmax.
        rounded: what the layer does to the absorbed query, ``[..., num_q_heads,
            kv_lora_rank + qk_rope_head_dim]``, before the kernel sees it; None: nothing.

    Returns:
        ``[..., num_q_heads * v_head_dim]``, float64.
    """
    import torch

    nope_dim, rank = projections.w_uk.shape[1:]
    token = query.double()
    absorbed = torch.einsum("...hp,hpl->...hl", token[..., :nope_dim], projections.w_uk)
    seen = torch.cat([absorbed, token[..., nope_dim:]], dim=-1)
    if rounded is not None:
        seen = rounded(seen)
    compressed = latents[..., :rank]
    scores = seen @ latents.mT
    shares = torch.softmax(scores * scale, dim=-1)
    return torch.einsum("...hl,hvl->...hv", shares @ compressed, projections.w_uv).flatten(-2)


def attend_up_projected(
    query: "torch.Tensor",
    latents: "torch.Tensor",
    project: UpProjection,
    kv_lora_rank: int,
    scale: float,
) -> "torch.Tensor":
    """One query token over the keys and values that ``project`` makes of the latents it may see.

    For a projection that rounds in a way of its own (fp8 weights take fp8 activations): no plan
    decides on that, and moved onto query and result, as in `attend`, it would come out otherwise.

    Args:
        query: ``[num_q_heads, qk_nope_head_dim + qk_rope_head_dim]``.
        latents: ``[num_tokens, kv_lora_rank + qk_rope_head_dim]``, float64.
        project: ``[n, kv_lora_rank]`` to keys ``[n, num_q_heads, qk_nope_head_dim]`` and values
            ``[n, num_q_heads, v_head_dim]``, float64.
        kv_lora_rank: where the latents' rotary part begins.
        scale: of the softmax.

    Returns:
        ``[num_q_heads * v_head_dim]``, float64.
    """
    import torch

    token = query.double()
    # Twice over the context in parts: keys of 128 heads are 256 KiB a token in float64.
    parts = latents.split(TOKENS_AT_ONCE)
    scores = []
    for part in parts:
        keys, _ = project(part[:, :kv_lora_rank])
        nope_dim = keys.shape[-1]
        own = torch.einsum("hp,thp->ht", token[:, :nope_dim], keys)
        scores.append(own + token[:, nope_dim:] @ part[:, kv_lora_rank:].T)
    shares = torch.softmax(torch.cat(scores, dim=1) * scale, dim=-1).split(TOKENS_AT_ONCE, dim=1)
    sums = [
        torch.einsum("ht,thv->hv", share, project(part[:, :kv_lora_rank])[1])
        for share, part in zip(shares, parts, strict=True)
    ]
    return torch.stack(sums).sum(dim=0).flatten()


def reference_rows(requests: Sequence[tuple[int, int]]) -> list[int]:
    """At most `MAX_ROWS` query tokens, ascending.

    Always the first and the last token of the batch and of the requests with the shortest and the
    longest context; the rest evenly spread.
    """
    starts = [0]
    for query_len, _ in requests:
        starts.append(starts[-1] + query_len)
    total = starts[-1]
    if total <= MAX_ROWS:
        return list(range(total))
    by_length = sorted(range(len(requests)), key=lambda index: requests[index][1])
    rows = {0, total - 1}
    for index in (by_length[0], by_length[-1]):
        rows |= {starts[index], starts[index + 1] - 1}
    spread = MAX_ROWS - len(rows)
    rows |= {round(step * (total - 1) / (spread - 1)) for step in range(spread)}
    return sorted(rows)
