"""The knobs that exist: what each is called, what it holds and how it is told to vLLM."""

__all__ = ["KNOBS", "Knob"]

from dataclasses import dataclass

from mla_tune.errors import InputError


@dataclass(frozen=True)
class Knob:
    """One setting of an attention backend that a plan may set.

    Attributes:
        name: as tables, journals and recordings spell it.
        kind: the type of its values.
        meaning: what a value says, with its unit.
        tie_rank: where it counts in choosing among tied plans: the knob of the lowest rank first.
            The plan that leaves it as it is comes first there, then the one with the smaller
            number (without its sign) or the name that sorts first.
        vllm_flag: the flag of ``vllm serve`` that sets it for a whole engine, with ``{}`` for the
            value, where one holds for every backend and release.
    """

    name: str
    kind: type[int] | type[str]
    meaning: str
    tie_rank: int
    vllm_flag: str = ""

    def checked(self, value: object) -> int | str:
        """Return ``value`` if a plan may hold it.

        Raises:
            InputError: it is of another type.
        """
        if type(value) is bool or not isinstance(value, self.kind):
            valid = f"a value of type {self.kind.__name__}"
            raise InputError(f"knob {self.name} is {value!r}", valid=valid)
        return value

    def tie_key(self, value: int | str | None) -> int | str:
        """By what plans are ordered that differ in this knob; None: it is not set."""
        if value is None:
            return self.kind()
        return abs(value) if isinstance(value, int) else value


KNOBS: dict[str, Knob] = {
    knob.name: knob
    for knob in (
        Knob(
            "reorder_batch_threshold",
            int,
            "the longest query, in tokens, that takes the decode path",
            tie_rank=1,
        ),
        Knob(
            "num_kv_splits",
            int,
            "into how many parts a decode kernel cuts the KV cache; -1 is CUTLASS_MLA's own "
            "choice, and for FLASH_ATTN_MLA it is the most parts it may choose (0: any number)",
            tie_rank=0,
        ),
        Knob(
            "prefill_backend",
            str,
            "the attention implementation of the prefill path, by its short name",
            tie_rank=2,
        ),
        Knob(
            "min_split_kv",
            int,
            "into how many parts TOKENSPEED_MLA's decode kernel cuts the KV cache at least; "
            "1 leaves it to the kernel",
            tie_rank=3,
        ),
        Knob(
            "decode_kernel",
            str,
            "which of FlashInfer's decode kernels FLASHINFER_MLA runs; auto leaves that to it",
            tie_rank=4,
        ),
        Knob(
            "block_n",
            int,
            "tokens of the KV cache in one step of a decode kernel's loop",
            tie_rank=5,
        ),
        Knob("block_h", int, "query heads of one thread block of a decode kernel", tie_rank=6),
        Knob("num_warps", int, "warps of one thread block of a decode kernel", tie_rank=7),
        Knob(
            "num_stages",
            int,
            "into how many stages Triton pipelines the loads of a decode kernel's loop",
            tie_rank=8,
        ),
    )
}
"""All knobs by name. Plans hold, and everything writes, their knobs in this order."""
