"""What a table says about one step."""

__all__ = ["VLLM_OWN", "Choice"]

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Choice:
    """The values for one kind of step, looked up once and then reused.

    A knob that is None stays as vLLM has it.

    Attributes:
        shape: the batch the choice was looked up for, as a batch spec.
        outcome: ``hit``, ``miss``, ``skewed`` (one request much longer than the others, which no
            uniform entry speaks for) or ``mixed`` (several kinds of requests).
        reason: for the log, on anything but a hit.
        longest_kv: the longest KV length measured for the entry; graph mode only, where the
            choice cannot follow the real lengths.
        checked: whether what reached the kernel has been compared with it.
    """

    shape: str
    outcome: str
    num_kv_splits: int | None = None
    threshold: int | None = None
    prefill_backend: str | None = None
    reason: str = ""
    longest_kv: int | None = None
    checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.num_kv_splits is None and self.threshold is None and self.prefill_backend is None:
            self.checked = True


# For steps without attention of ours to choose for, and after a failure in our code.
VLLM_OWN = Choice("any", "mixed")
