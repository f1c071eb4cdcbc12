"""A whole vLLM engine in a process of its own, for `bench_engine.py`: start, ask, stop."""

import contextlib
import ctypes
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LAYERS = 8
VOCABULARY = 16384
# How many requests of a batch bring home the logprobs of their whole vocabulary.
COMPARED_REQUESTS = 4
EXTENDS_A_SAMPLE = 3


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
    tables: str | None = None


def write_model(folder: Path, heads: int, max_model_len: int) -> None:
    """A config.json of DeepSeek-V2-Lite's attention; all layers dense."""
    config = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": LAYERS,
        "first_k_dense_replace": LAYERS,
        "moe_layer_freq": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": max_model_len,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


class ServedEngine:
    """The parent's end. ``ask`` names a method of `_Engine`."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._log = settings.model / f"{name}.log"
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(settings, self._log, theirs))

    def __enter__(self) -> "ServedEngine":
        _make_processes_alike()
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Build the engine. One at a time: vLLM refuses when memory changes under its profiling.

        Imports are done by then where several processes were entered before the first start.
        """
        started = time.monotonic()
        self.facts = self.ask("start")
        print(f"{self.name} engine up after {time.monotonic() - started:.0f} s", flush=True)

    def stop(self) -> None:
        if self._process.is_alive():
            self.send("stop")
            self._process.join(timeout=60)
        if self._process.is_alive():
            self._process.terminate()

    def ask(self, what: str, **arguments: Any) -> Any:
        self.send(what, **arguments)
        return self.answer()

    def send(self, what: str, **arguments: Any) -> None:
        # Of a process that has died, the answer says why.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send((what, arguments))

    def answer(self) -> Any:
        while not self._pipe.poll(1.0):
            if not self._process.is_alive():
                break
        try:
            answer = self._pipe.recv()
        except EOFError:
            answer = RuntimeError("its process died")
        if isinstance(answer, Exception):
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])
            raise SystemExit(f"the {self.name} engine failed: {answer}\n{tail}")
        return answer

    def said(self) -> list[str]:
        """What the plugin has logged."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line[line.index("mla-tune:") :] for line in lines if "mla-tune:" in line]


ADDR_NO_RANDOMIZE = 0x0040000  # sys/personality.h


def _make_processes_alike() -> None:
    """Let every engine started from here have the same hashes and the same addresses.

    Where a step is bound by Python, two default engines differ by up to 6 % without (measured).
    """
    os.environ["PYTHONHASHSEED"] = "0"
    # As vLLM sets it for its worker processes; a pool of threads would crowd the pinned cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)


def _pin_threads() -> None:
    """Put every engine on the same few cores, and its main thread on one core: they take turns."""
    *others, mine = sorted(os.sched_getaffinity(0))[-4:]
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), others or [mine])
    os.sched_setaffinity(0, [mine])


def _serve(settings: Settings, log: Path, pipe: Connection) -> None:
    """The child: import, build the engine when told to, answer until told to stop."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        _prepare_environment(settings)
        import vllm  # noqa: F401

        engine: Any = None
        while True:
            what, arguments = pipe.recv()
            if what == "stop":
                break
            if what == "start":
                engine = _Engine(settings)
                pipe.send(engine.facts)
            else:
                pipe.send(getattr(engine, what)(**arguments))
    except Exception as error:
        import traceback

        traceback.print_exc()
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
    sys.stdout.flush()
    # vLLM's own threads may keep a finished process alive.
    os._exit(0)


def _prepare_environment(settings: Settings) -> None:
    os.environ |= {
        # All requests of a batch must arrive before its first step.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # apply_model() sends a function of this script to the engine core.
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    os.environ.pop("MLA_TUNE_TABLES", None)
    os.environ.pop("MLA_TUNE_RECORD", None)
    if settings.tables is not None:
        os.environ["MLA_TUNE_TABLES"] = settings.tables
        points = importlib.metadata.entry_points(group="vllm.general_plugins")
        if not any(point.value == "mla_tune.runtime:register" for point in points):
            _declare_entry_point(settings.model)


def _declare_entry_point(folder: Path) -> None:
    """Where mla-tune lies on the path without being installed: what an installation would add."""
    declared = folder / "mla_tune_checkout-0.dist-info"
    declared.mkdir(exist_ok=True)
    (declared / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mla-tune-checkout\nVersion: 0\n"
    )
    (declared / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nmla_tune = mla_tune.runtime:register\n"
    )
    sys.path.append(str(folder))
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*known, str(folder)]))


WIDER = 40.0


def trained(model: Any) -> None:
    """Bring dummy weights, in place, to where trained ones are.

    vLLM draws all of them within 1e-3, the norms' included: attention is then all but uniform,
    and the logits do not feel the context. Each storage is scaled once: the absorbed projections
    are parameters too, views of ``kv_b_proj`` in some releases and copies in others. Scaled twice,
    softmax is so sharp that rounding alone decides the logits.
    """
    scaled = set()
    # The whole before its views.
    for parameter in sorted(model.parameters(), key=lambda found: -found.numel()):
        storage = parameter.untyped_storage().data_ptr()
        if not parameter.is_floating_point() or storage in scaled:
            continue
        scaled.add(storage)
        if parameter.ndim > 1:
            parameter.data.mul_(WIDER)
        else:
            parameter.data.fill_(1.0)


def _used_memory() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free


class _Engine:
    """An engine and the prompts it knows."""

    def __init__(self, settings: Settings) -> None:
        import torch

        used_before = _used_memory()
        import vllm

        self._params = vllm.SamplingParams
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
            max_logprobs=-1,
            disable_log_stats=False,
        )
        self._llm.apply_model(trained)
        torch.cuda.synchronize()
        cache = self._llm.llm_engine.vllm_config.cache_config
        per_token = LAYERS * 576 * 2
        self.facts = {
            "vllm": vllm.__version__,
            "gpu": torch.cuda.get_device_name(),
            "utilization": settings.utilization,
            "total_gib": torch.cuda.mem_get_info()[1] / 2**30,
            "used_gib": (_used_memory() - used_before) / 2**30,
            "kv_cache_gib": (cache.num_gpu_blocks or 0) * cache.block_size * per_token / 2**30,
        }
        core = self._llm.llm_engine.engine_core
        self._clock = core.get_output = StepClock(core.get_output)
        self._prompts: dict[int, list[int]] = {}
        self._seed = 1_000_000
        _pin_threads()

    def _prompt(self, request: int, length: int) -> list[int]:
        """The first ``length`` tokens of a request's text: a shorter one is a cached prefix."""
        if len(self._prompts.get(request, ())) < length:
            # Drawn from the start each time, so that the prefix stays what it was.
            self._prompts[request] = _tokens(request, length)
        return self._prompts[request][:length]

    def _generate(self, prompts: list[list[int]], tokens: int, logprobs: int = 0) -> list[Any]:
        """Generate ``tokens`` each; the first ``logprobs`` requests with all their logprobs."""
        chosen = [
            self._params(
                max_tokens=tokens,
                temperature=0.0,
                ignore_eos=True,
                detokenize=False,
                logprobs=-1 if request < logprobs else None,
            )
            for request in range(len(prompts))
        ]
        inputs: Any = [{"prompt_token_ids": prompt} for prompt in prompts]
        self._clock.times.clear()
        return list(self._llm.generate(inputs, chosen, use_tqdm=False))

    def fill(self, batch: int, context: int) -> None:
        """Compute the prefixes once, so that later they are only read."""
        self._generate([self._prompt(request, context) for request in range(batch)], 1)

    def decode(self, batch: int, context: int, steps: int) -> float:
        """Milliseconds a decode step of ``batch`` requests over ``context`` tokens.

        The mean of the middle half of the steps: the host's hiccups are in the other one.
        """
        self._generate([self._prompt(request, context) for request in range(batch)], steps + 2)
        # The first step computes the last tokens of the prompts, and the second may overlap it.
        times = self._clock.times[1:]
        steps_ms = sorted((b - a) * 1e3 for a, b in itertools.pairwise(times))
        quarter = len(steps_ms) // 4
        return statistics.fmean(steps_ms[quarter : len(steps_ms) - quarter])

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
        from mla_tune.runtime.deployment import _deployments

        return [str(deployment.counts) for deployment in _deployments.values()]


class StepClock:
    """The engine core's ``get_output``, noting when tokens came.

    With asynchronous scheduling some calls only fill the queue and bring none.
    """

    def __init__(self, get_output: Callable[[], Any]) -> None:
        self._get_output = get_output
        self.times: list[float] = []

    def __call__(self) -> Any:
        outputs = self._get_output()
        if outputs.outputs:
            self.times.append(time.perf_counter())
        return outputs


def _tokens(seed: int, count: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(2, VOCABULARY) for _ in range(count)]
