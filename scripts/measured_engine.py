"""One vLLM engine of `bench_engine.py`, in its own process, and what is measured of it."""

import contextlib
import os
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_model import LAYERS, VOCABULARY, trained
from mla_tune.vllm.memory import latent_bytes
from stepped_requests import SETTLING, Arrival, Step, SteppedRequests

# Of how many requests of a batch the logprobs of the whole vocabulary are compared.
COMPARED_REQUESTS = 4
EXTENDS_A_SAMPLE = 3

# Seeds of the texts that belong to no cached prefix, by what they are for.
TRACE_SEED, EXTENDS_SEED = 2_000_000, 1_000_000

MOST_GROWTH = 1 / 16
"""By how much of their context requests have grown when they are exchanged for fresh ones."""


@dataclass(frozen=True)
class Settings:
    """What an engine is started with.

    Attributes:
        model: a folder with the model's config.json.
        tables: what MLA_TUNE_TABLES is set to; None for vLLM's default.
        utilization: share of the GPU's memory.
    """

    model: Path
    backend: str
    max_model_len: int
    max_num_seqs: int
    utilization: float
    kv_cache_dtype: str = "auto"
    tables: str | None = None


class MeasuredEngine:
    """An engine and the prompts it knows."""

    def __init__(self, settings: Settings) -> None:
        import torch

        used_before = _used_memory()
        from vllm.sampling_params import RequestOutputKind

        import vllm

        self._params = vllm.SamplingParams
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._llm = vllm.LLM(
            model=str(settings.model),
            load_format="dummy",
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype="bfloat16",
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=16384,
            gpu_memory_utilization=settings.utilization,
            enable_prefix_caching=True,
            attention_config={"backend": settings.backend},
            kv_cache_dtype=settings.kv_cache_dtype,
            max_logprobs=-1,
            disable_log_stats=False,
        )
        self._llm.apply_model(trained)
        torch.cuda.synchronize()
        cache = self._llm.llm_engine.vllm_config.cache_config
        per_token = LAYERS * latent_bytes(cache.cache_dtype, 576)
        kv_cache_tokens = (cache.num_gpu_blocks or 0) * cache.block_size
        self.facts = {
            "vllm": vllm.__version__,
            "gpu": torch.cuda.get_device_name(),
            "utilization": settings.utilization,
            "total_gib": torch.cuda.mem_get_info()[1] / 2**30,
            "used_gib": (_used_memory() - used_before) / 2**30,
            "kv_cache_tokens": kv_cache_tokens,
            "kv_cache_gib": kv_cache_tokens * per_token / 2**30,
        }
        self._stepped = SteppedRequests(self._llm.llm_engine, self._greedy, torch.cuda.synchronize)
        self._held: tuple[int, int] | None = None
        self._grown = 0
        self._prompts: dict[int, list[int]] = {}
        self._seed = EXTENDS_SEED
        _pin_threads()

    def _prompt(self, request: int, length: int) -> list[int]:
        """The first ``length`` tokens of a request's text: a shorter one is a cached prefix."""
        if len(self._prompts.get(request, ())) < length:
            # Drawn from the start each time, so that the prefix stays what it was.
            self._prompts[request] = _tokens(request, length)
        return self._prompts[request][:length]

    def _greedy(self, tokens: int, logprobs: int | None = None) -> Any:
        """Parameters to generate so many tokens; their output is read at the end alone."""
        return self._params(
            max_tokens=tokens,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            logprobs=logprobs,
            output_kind=self._final_only,
        )

    def _generate(self, prompts: list[list[int]], tokens: int, logprobs: int = 0) -> list[Any]:
        """Generate ``tokens`` each; the first ``logprobs`` requests with all their logprobs."""
        self._release()
        chosen = [
            self._greedy(tokens, -1 if request < logprobs else None)
            for request in range(len(prompts))
        ]
        inputs: Any = [{"prompt_token_ids": prompt} for prompt in prompts]
        return list(self._llm.generate(inputs, chosen, use_tqdm=False))

    def _release(self) -> None:
        self._stepped.drop()
        self._held = None

    def fill(self, batch: int, context: int) -> None:
        """Compute the prefixes once, so that later they are only read."""
        self._generate([self._prompt(request, context) for request in range(batch)], 1)

    def decode(self, batch: int, context: int, steps: int) -> float:
        """Milliseconds a decode step of ``batch`` requests over ``context`` tokens.

        The mean of the middle half of the steps: the host's hiccups are in the other one. The
        requests stay from one sample to the next, until they have grown by `MOST_GROWTH`.

        Raises:
            RuntimeError: a step was not one decode of each request.
        """
        if self._held != (batch, context) or self._grown > context * MOST_GROWTH:
            self._hold(batch, context)
        self._grown += SETTLING + steps
        taken = self._stepped.run(steps)
        _all_decodes(taken, batch, context)
        steps_ms = sorted(step.ms for step in taken)
        quarter = len(steps_ms) // 4
        return statistics.fmean(steps_ms[quarter : len(steps_ms) - quarter])

    def _hold(self, batch: int, context: int) -> None:
        """Let ``batch`` requests run until each is decoding."""
        self._release()
        most = self._llm.llm_engine.vllm_config.model_config.max_model_len - context
        prompts = [self._prompt(request, context) for request in range(batch)]
        self._stepped.begin([Arrival(0, prompt, most) for prompt in prompts])
        # Of cached prefixes one step computes the last tokens; of others, one a chunk.
        tokens_a_step = self._llm.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens
        prefills = 1 + batch * context // tokens_a_step + batch
        for _ in range(prefills):
            if all(step.is_decode for step in self._stepped.run(1)):
                break
        self._held, self._grown = (batch, context), 0

    def begin_trace(self, requests: list[tuple[int, int, int]]) -> None:
        """Begin to serve a trace: at which step a request comes, its context, what it generates."""
        self._release()
        self._llm.reset_prefix_cache()
        self._stepped.begin(
            [
                Arrival(step, _tokens(TRACE_SEED + number, context), tokens)
                for number, (step, context, tokens) in enumerate(requests)
            ]
        )

    def trace_steps(self, count: int) -> list[Step]:
        """Go on with the trace for so many steps."""
        return self._stepped.run(count)

    def extend(self, batch: int, context: int, new_tokens: int) -> float:
        """Milliseconds until ``batch`` cached prefixes have taken ``new_tokens`` fresh ones."""
        taken = []
        for _ in range(EXTENDS_A_SAMPLE):
            self._seed += batch
            outputs = self._generate(self._extended(batch, context, new_tokens, self._seed), 1)
            first = max(output.metrics.first_token_ts for output in outputs)
            start = min(output.metrics.scheduled_ts for output in outputs)
            taken.append((first - start) * 1e3)
        return float(statistics.median(taken))

    def _extended(self, batch: int, context: int, new_tokens: int, seed: int) -> list[list[int]]:
        return [
            self._prompt(request, context) + _tokens(seed + request, new_tokens)
            for request in range(batch)
        ]

    def logprobs(
        self, batch: int, context: int, new_tokens: int, cached: bool
    ) -> list[list[float]]:
        """Logprobs of the whole vocabulary after ``context`` and ``new_tokens`` more.

        With ``cached`` the context is computed beforehand and the new tokens extend it; without,
        all is one prefill.
        """
        self._llm.reset_prefix_cache()
        if cached:
            self.fill(batch, context)
        # The same tokens in every engine, and none that another call has used.
        prompts = self._extended(batch, context, new_tokens, seed=500_000)
        outputs = self._generate(prompts, 1, logprobs=COMPARED_REQUESTS)
        told = []
        for output in outputs[:COMPARED_REQUESTS]:
            values = output.outputs[0].logprobs[0]
            told.append([values[token].logprob for token in range(VOCABULARY)])
        return told

    def counts(self) -> list[str]:
        from mla_tune.vllm.plugin.state import process_state

        return [str(deployment.counts) for deployment in process_state().deployments]


def _all_decodes(steps: list[Step], batch: int, context: int) -> None:
    for step in steps:
        if step[:3] != (batch, batch, batch):
            raise RuntimeError(
                f"a step of {step.requests} requests and {step.tokens} tokens where {batch} "
                f"requests of {context} tokens were to decode: the KV cache may be too small"
            )


def _used_memory() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free


def _pin_threads() -> None:
    """Put every engine on the same few cores, and its main thread on one core: they take turns."""
    *others, mine = sorted(os.sched_getaffinity(0))[-4:]
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), others or [mine])
    os.sched_setaffinity(0, [mine])


def _tokens(seed: int, count: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(2, VOCABULARY) for _ in range(count)]
