"""A whole vLLM engine by default against the same engine with the plugin, side by side.

Two engines of DeepSeek-V2 shape (dense layers, dummy weights) stay alive on one GPU, and take turns
on every cell, so that neither has a warmer or a quieter machine. Measured are decode steps, extends
of cached prefixes, the memory that is left for the KV cache, and the logprobs of the same prompts.

    python scripts/bench_engine.py --tables out/tables --backend TRITON_MLA --out engine.json
    python scripts/bench_engine.py --tables out/tables --backend FLASHMLA --extends 256,384,512
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mla_tune.shapes import format_size, parse_size

LAYERS = 8
VOCABULARY = 16384
DEFAULT, PLUGIN = "default", "plugin"
# How many requests of a batch bring home the logprobs of their whole vocabulary.
COMPARED_REQUESTS = 4


def main() -> None:
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="mla-tune-engine-"))
    _write_model(folder, arguments.heads, arguments.max_model_len)
    with _Engine(DEFAULT, arguments, folder) as default, _Engine(PLUGIN, arguments, folder) as ours:
        engines = [default, ours]
        result = {
            "arguments": {name: str(value) for name, value in vars(arguments).items()},
            "engines": {engine.name: engine.facts for engine in engines},
            "decode": _decode_cells(engines, arguments),
            "extend": _extend_cells(engines, arguments),
            "logprobs": _logprob_cells(engines, arguments),
            "plugin": ours.ask("counts"),
        }
        result["log"] = ours.said()
    result["memory"] = _memory(result["engines"])
    if arguments.kv_run:
        result["memory"] |= _kv_run(arguments, folder, result)
    _report(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(f"written to {arguments.out}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", required=True, help="what MLA_TUNE_TABLES is set to")
    parser.add_argument("--backend", default="TRITON_MLA")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--max-model-len", type=parse_size, default=131072)
    parser.add_argument("--batches", type=_sizes, default=[1, 8, 32, 128])
    parser.add_argument("--contexts", type=_sizes, default=_sizes("512,1k,4k,16k"))
    parser.add_argument("--extends", type=_sizes, default=[], help="new tokens, such as 256,512")
    parser.add_argument("--extend-batches", type=_sizes, default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=48, help="decode steps a sample")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--utilization", type=float, default=0.38, help="of each engine")
    parser.add_argument("--max-num-seqs", type=int, default=1024, help="vLLM's own on an H200")
    parser.add_argument("--no-kv-run", dest="kv_run", action="store_false")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [parse_size(part) for part in text.split(",") if part]


def _write_model(folder: Path, heads: int, max_model_len: int) -> None:
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


# One engine, in a process of its own


class _Engine:
    """The parent's end: start, ask, stop."""

    def __init__(
        self, name: str, arguments: argparse.Namespace, folder: Path, utilization: float = 0.0
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        settings = vars(arguments) | {"utilization": utilization or arguments.utilization}
        self._process = context.Process(
            target=_serve, args=(name, settings, folder, self._log, theirs)
        )

    def __enter__(self) -> "_Engine":
        started = time.monotonic()
        self._process.start()
        # Engines start one after the other: vLLM refuses when memory changes under its profiling.
        self.facts = self._answer()
        print(f"{self.name} engine up after {time.monotonic() - started:.0f} s", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._pipe.send(("stop", {}))
            self._process.join(timeout=60)
        if self._process.is_alive():
            self._process.terminate()

    def ask(self, what: str, **arguments: Any) -> Any:
        self._pipe.send((what, arguments))
        return self._answer()

    def said(self) -> list[str]:
        """What the plugin has logged."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line[line.index("mla-tune:") :] for line in lines if "mla-tune:" in line]

    def _answer(self) -> Any:
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


def _serve(name: str, settings: dict[str, Any], folder: Path, log: Path, pipe: Connection) -> None:
    """The child: build the engine, answer until told to stop."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        _prepare_environment(name, settings, folder)
        served = _Served(settings, folder)
        pipe.send(served.facts)
        while True:
            what, arguments = pipe.recv()
            if what == "stop":
                break
            pipe.send(getattr(served, what)(**arguments))
    except Exception as error:
        import traceback

        traceback.print_exc()
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
    sys.stdout.flush()
    # vLLM's own threads may keep a finished process alive.
    os._exit(0)


def _prepare_environment(name: str, settings: dict[str, Any], folder: Path) -> None:
    os.environ |= {
        # All requests of a batch must arrive before its first step.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    os.environ.pop("MLA_TUNE_TABLES", None)
    os.environ.pop("MLA_TUNE_RECORD", None)
    if name == PLUGIN:
        os.environ["MLA_TUNE_TABLES"] = settings["tables"]
        points = importlib.metadata.entry_points(group="vllm.general_plugins")
        if not any(point.value == "mla_tune.runtime:register" for point in points):
            _declare_entry_point(folder)


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
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*_python_path(), str(folder)]))


def _python_path() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


WIDER = 40.0
"""vLLM's dummy weights are within 1e-3, with which attention is all but uniform and the logits do
not feel it; 40 times that is where trained weights are."""


def _widened(model: Any) -> None:
    """Scale every matrix of the model in place, the absorbed projections with the others."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.is_floating_point():
            parameter.data.mul_(WIDER)


class _Served:
    """An engine and the prompts it knows."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        import torch

        free_before = torch.cuda.mem_get_info()[0]
        import vllm

        # apply_model() below sends a function of this script to the engine core.
        os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        self._params = vllm.SamplingParams
        self._llm = vllm.LLM(
            model=str(folder),
            load_format="dummy",
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype="bfloat16",
            max_model_len=settings["max_model_len"],
            max_num_seqs=settings["max_num_seqs"],
            max_num_batched_tokens=16384,
            gpu_memory_utilization=settings["utilization"],
            enable_prefix_caching=True,
            attention_config={"backend": settings["backend"]},
            max_logprobs=-1,
            disable_log_stats=False,
        )
        self._llm.apply_model(_widened)
        torch.cuda.synchronize()
        cache = self._llm.llm_engine.vllm_config.cache_config
        per_token = LAYERS * 576 * 2
        self.facts = {
            "vllm": vllm.__version__,
            "gpu": torch.cuda.get_device_name(),
            "utilization": settings["utilization"],
            "total_gib": torch.cuda.mem_get_info()[1] / 2**30,
            "used_gib": (free_before - torch.cuda.mem_get_info()[0]) / 2**30,
            "kv_cache_gib": (cache.num_gpu_blocks or 0) * cache.block_size * per_token / 2**30,
        }
        self._prompts: dict[int, list[int]] = {}
        self._fresh = 0

    def _prompt(self, request: int, length: int) -> list[int]:
        """The first ``length`` tokens of a request's text: a shorter one is a cached prefix."""
        import random

        if len(self._prompts.get(request, ())) < length:
            draw = random.Random(request)
            self._prompts[request] = [draw.randrange(2, VOCABULARY) for _ in range(length)]
            # Drawn from the start each time, so that the prefix stays what it was.
        return self._prompts[request][:length]

    def _generate(self, prompts: list[list[int]], tokens: int, **params: Any) -> list[Any]:
        chosen = self._params(
            max_tokens=tokens, temperature=0.0, ignore_eos=True, detokenize=False, **params
        )
        inputs: Any = [{"prompt_token_ids": prompt} for prompt in prompts]
        return list(self._llm.generate(inputs, chosen, use_tqdm=False))

    def fill(self, batch: int, context: int) -> None:
        """Compute the prefixes once, so that later they are only read."""
        self._generate([self._prompt(request, context) for request in range(batch)], 1)

    def decode(self, batch: int, context: int, steps: int) -> float:
        """Milliseconds a decode step of ``batch`` requests over ``context`` tokens."""
        prompts = [self._prompt(request, context) for request in range(batch)]
        outputs = self._generate(prompts, steps + 1)
        first = max(output.metrics.first_token_ts for output in outputs)
        last = max(output.metrics.last_token_ts for output in outputs)
        return float(last - first) / steps * 1e3

    def extend(self, batch: int, context: int, new_tokens: int) -> float:
        """Milliseconds until ``batch`` cached prefixes have taken ``new_tokens`` fresh ones."""
        outputs = self._generate(self._extended(batch, context, new_tokens), 1)
        first = max(output.metrics.first_token_ts for output in outputs)
        start = min(output.metrics.scheduled_ts for output in outputs)
        return float(first - start) * 1e3

    def _extended(self, batch: int, context: int, new_tokens: int) -> list[list[int]]:
        import random

        self._fresh += 1
        draw = random.Random(1_000_000 + self._fresh)
        return [
            self._prompt(request, context)
            + [draw.randrange(2, VOCABULARY) for _ in range(new_tokens)]
            for request in range(batch)
        ]

    def logprobs(self, batch: int, context: int, new_tokens: int) -> list[list[float]]:
        """Logprobs of the whole vocabulary after ``new_tokens`` on a cached prefix."""
        # The same tokens in both engines, and none of them cached by an earlier call.
        self._llm.reset_prefix_cache()
        self.fill(batch, context)
        self._fresh = 0
        outputs = self._generate(self._extended(batch, context, new_tokens), 1, logprobs=-1)
        self._fresh = 1000
        told = []
        for output in outputs[:COMPARED_REQUESTS]:
            values = output.outputs[0].logprobs[0]
            told.append([values[token].logprob for token in range(VOCABULARY)])
        return told

    def counts(self) -> list[str]:
        from mla_tune.runtime.deployment import _deployments

        return [str(deployment.counts) for deployment in _deployments.values()]


# What is measured


def _alternating(
    engines: list[_Engine], repeats: int, measure: Callable[[_Engine], float]
) -> dict[str, Any]:
    """Let the engines take turns, each going first every other time."""
    samples: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:
        measure(engine)  # compiles what is not compiled yet
    for turn in range(repeats):
        for engine in engines if turn % 2 == 0 else reversed(engines):
            samples[engine.name].append(measure(engine))
    medians = {f"{name}_ms": statistics.median(values) for name, values in samples.items()}
    ratios = [a / b for a, b in zip(samples[DEFAULT], samples[PLUGIN], strict=True)]
    return {**medians, "speedup": statistics.median(ratios), "samples_ms": samples}


def _decode_cells(engines: list[_Engine], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    cells = []
    for context in arguments.contexts:
        for engine in engines:
            engine.ask("fill", batch=max(arguments.batches), context=context)
        for batch in arguments.batches:
            cell = _alternating(
                engines,
                arguments.repeats,
                lambda engine, b=batch, c=context: engine.ask(  # type: ignore[misc]
                    "decode", batch=b, context=c, steps=arguments.steps
                ),
            )
            tokens = {
                f"{name}_tokens_per_s": batch / cell[f"{name}_ms"] * 1e3
                for name in (DEFAULT, PLUGIN)
            }
            cells.append({"batch": batch, "context": context, **cell, **tokens})
            print(f"decode {batch} x {format_size(context)}: {_told(cell)}", flush=True)
    return cells


def _extend_cells(engines: list[_Engine], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    cells = []
    for context in arguments.contexts if arguments.extends else ():
        for engine in engines:
            engine.ask("fill", batch=max(arguments.extend_batches), context=context)
        for new_tokens in arguments.extends:
            for batch in arguments.extend_batches:
                cell = _alternating(
                    engines,
                    arguments.repeats,
                    lambda engine, b=batch, c=context, n=new_tokens: engine.ask(  # type: ignore[misc]
                        "extend", batch=b, context=c, new_tokens=n
                    ),
                )
                cells.append({"batch": batch, "context": context, "new_tokens": new_tokens, **cell})
                print(
                    f"extend {batch} x {new_tokens} on {format_size(context)}: {_told(cell)}",
                    flush=True,
                )
    return cells


def _told(cell: dict[str, Any]) -> str:
    return f"{cell['default_ms']:.3f} ms -> {cell['plugin_ms']:.3f} ms, {cell['speedup']:.3f}x"


def _logprob_cells(engines: list[_Engine], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare the two engines, and the default with itself at another batch size.

    The latter orders its reductions differently as well (other splits, other tiles), and so
    says how far apart two right answers may be.
    """
    cells = []
    context = min(arguments.contexts, key=lambda size: abs(size - 1024))
    for new_tokens in (1, *arguments.extends):
        for batch in sorted({min(8, max(arguments.batches)), min(32, max(arguments.batches))}):
            case = {"batch": batch, "context": context, "new_tokens": new_tokens}
            default, ours = (engine.ask("logprobs", **case) for engine in engines)
            alone = engines[0].ask("logprobs", **(case | {"batch": COMPARED_REQUESTS}))
            elsewhere = engines[0].ask("logprobs", **(case | {"context": context // 2}))
            between, within = _distance(default, ours), _distance(default, alone)
            # Where half the context gives the same logits, they say nothing about attention.
            control = _distance(default, elsewhere)
            agrees = between <= max(2 * within, 0.02) < control
            cells.append(
                {
                    **case,
                    "plugin": between,
                    "other_batch": within,
                    "half_context": control,
                    "agrees": agrees,
                }
            )
    return cells


def _distance(one: Iterable[list[float]], other: Iterable[list[float]]) -> float:
    """The largest difference of two logprobs, in standard deviations of a request's logprobs."""
    worst = 0.0
    for a, b in zip(one, other, strict=False):
        apart = max(abs(x - y) for x, y in zip(a, b, strict=True))
        worst = max(worst, apart / statistics.pstdev(a))
    return worst


def _memory(engines: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the plugin leaves free beside KV caches of equal size."""
    beside = {name: facts["used_gib"] - facts["kv_cache_gib"] for name, facts in engines.items()}
    return {
        "beside_kv_cache_default_gib": beside[DEFAULT],
        "beside_kv_cache_plugin_gib": beside[PLUGIN],
        "given_back_gib": beside[DEFAULT] - beside[PLUGIN],
    }


def _kv_run(
    arguments: argparse.Namespace, folder: Path, result: dict[str, Any]
) -> dict[str, float]:
    """Start the plugin's engine with as much more for the KV cache as it has given back.

    vLLM up to 0.32 reserves TRITON_MLA's workspace after it has sized the KV cache, so the
    utilization has to say so.
    """
    default = result["engines"][DEFAULT]
    more = result["memory"]["given_back_gib"] / default["total_gib"]
    if more < 0.001:
        return {"kv_cache_gained_gib": 0.0}
    utilization = round(arguments.utilization + more, 4)
    with _Engine(PLUGIN, arguments, folder, utilization) as engine:
        return {
            "utilization_for_the_same_total": utilization,
            "kv_cache_gained_gib": engine.facts["kv_cache_gib"] - default["kv_cache_gib"],
            "used_gib_default": default["used_gib"],
            "used_gib_plugin": engine.facts["used_gib"],
        }


def _report(result: dict[str, Any]) -> None:
    facts = result["engines"][DEFAULT]
    print(f"\nvLLM {facts['vllm']} on {facts['gpu']}, {result['arguments']['backend']}")
    head = f"{'':24}{'default ms':>12}{'plugin ms':>12}{'speed-up':>10}"
    print(f"{head}{'default tok/s':>15}{'plugin tok/s':>15}")
    for cell in result["decode"]:
        print(
            f"decode {cell['batch']:>4} x {format_size(cell['context']):<10}"
            f"{cell['default_ms']:>12.3f}{cell['plugin_ms']:>12.3f}{cell['speedup']:>10.3f}"
            f"{cell['default_tokens_per_s']:>15.0f}{cell['plugin_tokens_per_s']:>15.0f}"
        )
    for cell in result["extend"]:
        where = f"{cell['batch']} x {cell['new_tokens']} on {format_size(cell['context'])}"
        print(
            f"extend {where:<17}{cell['default_ms']:>12.3f}{cell['plugin_ms']:>12.3f}"
            f"{cell['speedup']:>10.3f}"
        )
    cells = [*result["decode"], *result["extend"]]
    print(f"worst {min(cell['speedup'] for cell in cells):.3f}x")
    for cell in result["logprobs"]:
        print(
            f"logprobs {cell['batch']} x {cell['new_tokens']} on {format_size(cell['context'])}: "
            f"plugin {cell['plugin']:.4f}, default at another batch {cell['other_batch']:.4f}, "
            f"over half the context {cell['half_context']:.4f} standard deviations: "
            f"{'agree' if cell['agrees'] else 'DIFFER'}"
        )
    for name, value in result["memory"].items():
        print(f"{name} {value:.3f}")
    print("\n".join([*result["log"], *result["plugin"]]))


if __name__ == "__main__":
    main()
