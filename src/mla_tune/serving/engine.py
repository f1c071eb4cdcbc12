"""The engine that a vLLM command starts, as plain data: all that decides which tables it needs."""

__all__ = ["ServedDevice", "ServedEngine"]

from dataclasses import dataclass
from typing import Self

from mla_tune.errors import InputError
from mla_tune.serving.message import Message
from mla_tune.shapes import MlaDimensions


@dataclass(frozen=True)
class ServedDevice:
    """The device under an engine, in the words of `mla_tune.environment`.

    Attributes:
        name: as its driver gives it.
        compute_capability: such as ``9.0``; None on a CPU.
        sm_count: streaming multiprocessors.
    """

    name: str
    compute_capability: str | None
    sm_count: int


@dataclass(frozen=True)
class ServedEngine(Message):
    """What vLLM's configuration of an engine says that a table depends on.

    Attributes:
        vllm: the release.
        device: the first GPU, or the processor where there is none.
        model: what a decode step of one GPU has: the heads of a tensor-parallel rank, times the
            ranks of decode context parallelism, which gather their queries.
        kv_cache_dtype: vLLM's name, of the layers; 16-bit names are ``auto``.
        block_size: tokens, where the command says so; None for the one of the backend.
        quantization: of the checkpoint, as `mla_tune.quantization` names it, or as vLLM does
            where no eager table can be tuned for it.
        max_model_len: tokens of a request that one GPU holds, at most.
        max_num_seqs: requests of a step.
        capture_sizes: ``cudagraph_capture_sizes`` of vLLM's own final configuration, in tokens.
        decode_graphs: whether decode steps are replayed from full CUDA graphs.
        draft_tokens: of speculative decoding.
        kv_cache_tokens: an upper bound of what the KV cache of one GPU holds; None: not known.
        index_topk: tokens that a sparse backend attends to; None for a dense model.
        backend: the attention backend that vLLM chooses or was asked for; None: not known.
        context_parallel: over how many GPUs the KV cache of a request is spread.
        num_gpus: that the engine has on this host.
        refusal: why no table acts in such an engine; None where one may.
    """

    vllm: str
    device: ServedDevice
    model: MlaDimensions
    kv_cache_dtype: str
    block_size: int | None
    quantization: str
    max_model_len: int
    max_num_seqs: int
    capture_sizes: tuple[int, ...]
    decode_graphs: bool
    draft_tokens: int
    kv_cache_tokens: int | None
    index_topk: int | None
    backend: str | None
    context_parallel: int
    num_gpus: int
    refusal: str | None = None

    @property
    def query_len(self) -> int:
        """Tokens of a request in a decode step."""
        return 1 + self.draft_tokens

    @property
    def most_decode_tokens(self) -> int:
        """Tokens of a decode step of all sequences that it serves at a time."""
        return self.max_num_seqs * self.query_len

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `as_json` wrote.

        Raises:
            InputError: it is something else, such as that of another version.
        """
        try:
            return super().from_json(text)
        except ValueError as error:
            raise InputError(f"not the description of an engine: {error}") from None
