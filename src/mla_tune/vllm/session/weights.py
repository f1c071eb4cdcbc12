"""The up-projection ``kv_b_proj`` with random weights, plain or quantized as in a checkpoint."""

__all__ = ["absorbed_weight", "kv_b_projection"]

from typing import TYPE_CHECKING, Any

from mla_tune.errors import UnavailableError
from mla_tune.quantization import BLOCK, PER_BLOCK, UNQUANTIZED, quantization_of
from mla_tune.session import Setup
from mla_tune.vllm import compat

if TYPE_CHECKING:
    import torch

PREFIX = "model.layers.0.self_attn.kv_b_proj"

# Rounding to e4m3 a second time is 2.6 % (root mean square); a wrong scale is far more.
LARGEST_ERROR = 0.06


def kv_b_projection(
    setup: Setup, dtype: "torch.dtype", device: "torch.device"
) -> tuple[Any, "torch.Tensor"]:
    """Build vLLM's own linear layer as it is once a model's weights are loaded.

    Returns:
        The layer, and the weights that it stands for, ``[num_q_heads * (qk_nope_head_dim +
        v_head_dim), kv_lora_rank]``: in ``dtype``, or float32 where fp8 values have scales.

    Raises:
        UnavailableError: this vLLM or this device has no such quantization.
    """
    import torch

    model = setup.model
    linear = compat.symbol("vllm.model_executor.layers.linear", "ColumnParallelLinear")
    try:
        projection = linear(
            model.kv_lora_rank,
            model.num_q_heads * (model.qk_nope_head_dim + model.v_head_dim),
            bias=False,
            params_dtype=dtype,
            quant_config=_quant_config(setup.quantization),
            prefix=PREFIX,
        ).to(device)
        with torch.no_grad():
            weight = _fill(projection, setup, dtype, device)
        # Chooses and prepares the matrix product; on CUDA it does nothing to plain weights.
        projection.quant_method.process_weights_after_loading(projection)
    except Exception as error:
        if setup.quantization == UNQUANTIZED:
            raise
        # Kernels that are missing, too old a GPU, shapes that blocks do not divide.
        raise UnavailableError(
            f"kv_b_proj cannot be quantized as {setup.quantization} here: "
            f"{type(error).__name__}: {error}"
        ) from error
    built = quantization_of(projection)
    if built != setup.quantization:
        raise UnavailableError(
            f"vLLM made kv_b_proj {built} here, where {setup.quantization} was asked for"
        )
    return projection, weight


def absorbed_weight(layer: Any, projection: Any, weight: "torch.Tensor") -> "torch.Tensor":
    """The weights that a quantized layer decodes with, as `kv_b_projection` returns them.

    vLLM dequantizes them when it absorbs them, on some GPUs after rounding the scales to powers
    of two (DeepGEMM), which it then does in the projection as well.

    Args:
        layer: the `MLAAttention`, its weights processed.
        projection: its ``kv_b_proj``.
        weight: what the checkpoint says.

    Raises:
        UnavailableError: either of the two is not worth what the checkpoint says.
    """
    import torch

    keys, values = layer.W_UK_T, layer.W_UV.transpose(1, 2)
    absorbed = torch.cat([keys, values], dim=1).reshape(weight.shape).float()
    ones = torch.eye(weight.shape[1], dtype=keys.dtype, device=keys.device)
    with torch.no_grad():
        projected = projection(ones)[0].T.float()
    for name, found in (("absorbs", absorbed), ("projects with", projected)):
        error = float((found - weight).norm() / weight.norm())
        if not error < LARGEST_ERROR:
            raise UnavailableError(
                f"vLLM {name} weights here that are {error:.0%} beside the checkpoint's",
                remedy="report it with the release and the GPU",
            )
    return absorbed


def _quant_config(quantization: str) -> Any | None:
    """The configuration of a checkpoint that holds fp8 weights, as ``config.json`` gives it."""
    if quantization == UNQUANTIZED:
        return None
    fp8 = compat.symbol("vllm.model_executor.layers.quantization.fp8", "Fp8Config")
    block = list(BLOCK) if quantization == PER_BLOCK else None
    return fp8(
        is_checkpoint_fp8_serialized=True, activation_scheme="dynamic", weight_block_size=block
    )


def _fill(
    projection: Any, setup: Setup, dtype: "torch.dtype", device: "torch.device"
) -> "torch.Tensor":
    """Load weights that keep keys and values of order one; return what they are worth."""
    import torch

    generator = torch.Generator(device=device).manual_seed(0)
    size = tuple(projection.weight.shape)
    drawn = torch.randn(size, generator=generator, device=device, dtype=torch.float32)
    drawn *= setup.model.kv_lora_rank**-0.5
    if setup.quantization == UNQUANTIZED:
        weight = drawn.to(dtype)
        projection.weight.copy_(weight)
        return weight
    block = BLOCK if setup.quantization == PER_BLOCK else size
    scales = _block_scales(drawn, block)
    each = scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    each = each[: size[0], : size[1]]
    projection.weight.copy_((drawn / each).to(projection.weight.dtype))
    stored = getattr(projection, "weight_scale_inv", None)
    if stored is None:
        stored = projection.weight_scale
    stored.copy_(scales.view(stored.shape))
    worth: torch.Tensor = projection.weight.float() * each
    return worth


def _block_scales(weight: "torch.Tensor", block: tuple[int, int]) -> "torch.Tensor":
    """Scales that bring each block's largest value to the largest of e4m3, float32 ``[m, n]``."""
    import torch

    rows, columns = (-(-size // part) for size, part in zip(weight.shape, block, strict=True))
    padded = torch.zeros((rows * block[0], columns * block[1]), device=weight.device)
    padded[: weight.shape[0], : weight.shape[1]] = weight.abs()
    largest = padded.view(rows, block[0], columns, block[1]).amax(dim=(1, 3))
    return largest / torch.finfo(torch.float8_e4m3fn).max
