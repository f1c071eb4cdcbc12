"""What two tables must have in common before their latencies mean anything beside each other."""

__all__ = ["Ground"]

from dataclasses import dataclass, field

from mla_tune.table import Header
from mla_tune.table.device_names import device_kind


@dataclass(frozen=True)
class Ground:
    """The GPU, the layer and the engine mode that latencies were measured with.

    Not the block size, which each backend chooses for itself, and neither vLLM's release, unless
    one is named, nor ``max_model_len``: those may differ, and are told.

    Attributes:
        gpu: its name, as the first of the tables has it.
        gpu_kind: the same for all names of one GPU.
        sm_count: of a GPU; None on a CPU, where it is a number of threads.
        model: the dimensions, ``num_q_heads`` of one GPU among them.
        quantization: of ``kv_b_proj``, which a graph of decodes does not use: None there.
        index_topk: of a sparse backend; None for a dense one.
        vllm: the release, where others are compared apart; None for any.
    """

    gpu: str = field(compare=False)
    gpu_kind: str
    compute_capability: str | None
    sm_count: int | None
    locked_sm_clock_mhz: int | None
    model: tuple[tuple[str, int], ...]
    kv_cache_dtype: str
    quantization: str | None
    mode: str
    index_topk: int | None
    vllm: str | None = None

    @classmethod
    def of(cls, header: Header) -> "Ground":
        """The ground on which a table was measured."""
        device, engine = header.device, header.engine
        return cls(
            gpu=device.name,
            gpu_kind=device_kind(device.name),
            compute_capability=device.compute_capability,
            sm_count=None if device.compute_capability is None else device.sm_count,
            locked_sm_clock_mhz=device.locked_sm_clock_mhz,
            model=tuple(sorted(header.model.items())),
            kv_cache_dtype=header.kv_cache_dtype,
            quantization=header.quantization if engine.mode == "eager" else None,
            mode=engine.mode,
            index_topk=engine.index_topk,
        )

    @property
    def num_q_heads(self) -> int:
        return dict(self.model)["num_q_heads"]

    def __str__(self) -> str:
        parts = [self.gpu, f"{self.num_q_heads} heads", f"KV {self.kv_cache_dtype}", self.mode]
        if self.quantization not in (None, "none"):
            parts.append(f"kv_b_proj {self.quantization}")
        if self.index_topk is not None:
            parts.append(f"sparse, {self.index_topk} tokens")
        if self.locked_sm_clock_mhz is not None:
            parts.append(f"SM clock locked at {self.locked_sm_clock_mhz} MHz")
        if self.vllm is not None:
            parts.append(f"vLLM {self.vllm}")
        return ", ".join(parts)
