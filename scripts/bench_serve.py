#!/usr/bin/env python3
r"""`mla-tune serve` against plain `vllm serve`: time to the first token, decode steps, counters.

    python scripts/bench_serve.py --tune-for 180 --out serve.json

One server after the other, each a whole vLLM of DeepSeek-V2 shape with dummy weights, asked
through the OpenAI API: plain, tuned from an empty cache, and tuned again, when the cache has the
tables; then plain once more, as a later start finds more in vLLM's caches: what is added is added
to the faster plain one. A start before them all, which is not judged, fills the caches of vLLM's
compilers. --runs makes some of these; with --folder, which is kept, and the same --out, later
commands make the others, and the last judges them all.

A decode step is what an answer of more tokens takes beyond a shorter one, per token: 64 streams of
8 ms each keep a client busier than the GPU. Tokens are sampled without FlashInfer, whose sampler
takes two minutes to compile where it is not installed compiled.

A start builds steps without requests, for graphs and warm-ups (70 and 5 with 35 captured sizes on
0.33.0), which vLLM does not count: counters are compared from the first answer on.

A start that ends badly is told and the next one goes on; --out has what is known whenever it ends.

Exits 1 where a start or a request fails, the first tuned start takes longer than --tune-for beyond
the plain one (and --allowance for vLLM's own scatter), the second adds more than 3 s, a cell is
slower than 0.99 times the plain one, or the counters in /metrics do not add up to the engine's
steps.
"""

import argparse
import asyncio
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import openai

from engine_model import VOCABULARY, write_model
from mla_tune.files.atomic_write import write_atomically
from mla_tune.shapes import parse_size
from needs import need
from plugin_entry_point import declare_entry_point

PORT = 8731
MODEL = "dummy"
PATIENCE_S = 400.0
STOP_S = 60.0
SHORT_TOKENS, LONG_TOKENS = 64, 320
ROUNDS = 5
RUNS = ("warm-up", "plain", "tuned", "again", "plain-last")
JUDGED = ("plain", "tuned", "again")
ADDED_BY_CACHE_S = 3.0
HOW = ("folder", "out", "runs")
"""Arguments that do not change what is measured."""

COUNTED_AFTER_S = 6.0
"""The plugin carries its counts over every five seconds."""

SLOWEST = 0.99


def main() -> int:
    arguments = _arguments()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="mla-tune-serve-"))
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, arguments.heads, arguments.max_model_len)
    write_tokenizer(folder)
    declare_entry_point(folder)
    plain = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder)]
    plain += ["--served-model-name", MODEL, "--load-format", "dummy", "--port", str(PORT)]
    plain += ["--attention-backend", arguments.backend, "--dtype", "bfloat16"]
    plain += ["--max-model-len", str(arguments.max_model_len)]
    plain += ["--max-num-seqs", str(arguments.max_num_seqs)]
    plain += ["--gpu-memory-utilization", str(arguments.utilization)]
    ours = [sys.executable, "-m", "mla_tune", "serve", "--cache", str(folder / "cache")]
    ours += ["--tune-for", f"{arguments.tune_for:g}s", "--", *plain]
    commands = dict(zip(RUNS, (plain, plain, ours, ours, plain), strict=True))
    result = earlier(arguments)
    asked = {name: commands[name] for name in RUNS if name in arguments.runs}
    if "tuned" in asked:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    run_starts(asked, folder, arguments, result)
    if missing := [name for name in JUDGED if name not in result]:
        print(f"not judged: no start yet that is {' or '.join(missing)}")
        return int(any("problem" in result[name] for name in asked))
    problems = judged(result, arguments.tune_for + arguments.allowance)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return int(bool(problems))


def earlier(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --out has of the same servers, or nothing."""
    asked = {name: value for name, value in vars(arguments).items() if name not in HOW}
    if arguments.out is None or not arguments.out.exists():
        return {"arguments": asked}
    found: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8"))
    if found["arguments"] != asked:
        raise SystemExit(f"{arguments.out} is of other servers: {found['arguments']}")
    return found


def run_starts(
    commands: dict[str, list[str]],
    folder: Path,
    arguments: argparse.Namespace,
    result: dict[str, Any],
) -> None:
    """One server after the other; each leaves what is known of it in ``result`` and --out."""
    for name, command in commands.items():
        log = folder / f"{name}.log"
        start: dict[str, Any] = {}
        result[name] = start
        try:
            with served(command, log) as seconds:
                print(f"{name}: first token after {seconds:.1f} s", flush=True)
                start["first_token_s"] = seconds
                if name != "warm-up":
                    _measure(start, arguments)
        except Exception as error:
            start["problem"] = f"{type(error).__name__}: {error}"
            print(f"{name}: {start['problem']}", flush=True)
        except BaseException as stopped:
            start["problem"] = type(stopped).__name__
            raise
        finally:
            start["said"] = said(log)
            _write(result, arguments.out)


def _measure(start: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Put decode steps and counters into ``start``, each as soon as it is there."""
    time.sleep(COUNTED_AFTER_S)
    start["metrics_before"] = metrics()
    start["cells"] = []
    for batch in arguments.batches:
        for context in arguments.contexts:
            rounds_ms = asyncio.run(decoded(batch, context))
            start["cells"].append(cell_of(batch, context, rounds_ms))
    time.sleep(COUNTED_AFTER_S)
    start["metrics"] = metrics()


def judged(result: dict[str, Any], budget_s: float) -> list[str]:
    """Print what was found, and return what is not as it should be.

    Starts are compared where none of the three has ended badly.
    """
    starts = {name: start for name, start in result.items() if name != "arguments"}
    bad = [f"{name}: {start['problem']}" for name, start in starts.items() if "problem" in start]
    problems = [told.splitlines()[0] for told in bad]
    plain, tuned, again = compared = [starts[name] for name in JUDGED]
    if not any("problem" in start for start in compared):
        last_s = starts.get("plain-last", {}).get("first_token_s", math.inf)
        plain_s = min(plain["first_token_s"], last_s)
        problems += _compared(plain | {"first_token_s": plain_s}, tuned, again, budget_s)
    for name in ("tuned", "again"):
        if found := starts[name].get("metrics"):
            problems += _miscounted(name, starts[name]["metrics_before"], found)
        for line in starts[name]["said"]:
            print(f"  {line}")
    return problems


def _miscounted(name: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is wrong with the counters of the steps between two looks."""
    steps = {key: count - before["steps"].get(key, 0.0) for key, count in after["steps"].items()}
    counted, engine_steps = sum(steps.values()), after["engine_steps"] - before["engine_steps"]
    print(f"{name}: {steps} of {engine_steps:.0f} steps, {after['events']}")
    if counted and counted == engine_steps:
        return []
    return [f"{name}: {counted:.0f} steps counted of {engine_steps:.0f}"]


def _compared(
    plain: dict[str, Any], tuned: dict[str, Any], again: dict[str, Any], budget_s: float
) -> list[str]:
    problems = []
    first_s, second_s = (each["first_token_s"] - plain["first_token_s"] for each in (tuned, again))
    print(f"added to the time to the first token: {first_s:.1f} s, again {second_s:.1f} s")
    if first_s > budget_s:
        problems.append(f"the budget of {budget_s:.0f} s was not kept")
    if second_s > ADDED_BY_CACHE_S:
        problems.append(f"the second start adds {second_s:.1f} s")
    for was, first, second in zip(plain["cells"], tuned["cells"], again["cells"], strict=True):
        gains = [was["step_ms"] / now["step_ms"] for now in (first, second)]
        print(
            f"{was['batch']} x {was['context']}: {was['step_ms']:.2f} ms -> "
            f"{first['step_ms']:.2f} ms ({gains[0]:.2f}x), again {gains[1]:.2f}x"
        )
        problems += [f"{was['batch']} x {was['context']} is slower"] * (min(gains) < SLOWEST)
    return problems


@contextmanager
def served(command: Sequence[str], log: Path) -> Iterator[float]:
    """A server, from its start to its end; gives the seconds to the first token it served."""
    with log.open("w") as file:
        began_s = time.monotonic()
        # A session of its own: vLLM's other processes end with it.
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"VLLM_USE_FLASHINFER_SAMPLER": "0"},
        )
    url = f"http://127.0.0.1:{PORT}/v1"
    try:
        with openai.OpenAI(base_url=url, api_key="-", max_retries=0) as client:
            while not _answers(client):
                if process.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
                    tail = log.read_text(errors="replace").splitlines()[-40:]
                    raise RuntimeError("\n".join([f"no server by {command}", *tail]))
                time.sleep(0.1)
        yield time.monotonic() - began_s
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and whatever it has started, which may outlive it."""
    try:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(client: openai.OpenAI) -> bool:
    try:
        client.completions.create(model=MODEL, prompt=text(0, 8), max_tokens=1)
    except (openai.APIConnectionError, openai.InternalServerError):
        return False
    return True


async def decoded(batch: int, context: int) -> list[float]:
    """Milliseconds a decode step of ``batch`` requests over ``context`` tokens, of each round.

    The prompts' KV is cached by then, so that short and long answers differ by their tokens alone.
    """
    url, rounds = f"http://127.0.0.1:{PORT}/v1", []
    async with openai.AsyncOpenAI(base_url=url, api_key="-", timeout=300.0) as client:
        prompts = [text(request, context) for request in range(batch)]
        await _answered_s(client, prompts, SHORT_TOKENS)
        for _ in range(ROUNDS):
            short_s = await _answered_s(client, prompts, SHORT_TOKENS)
            long_s = await _answered_s(client, prompts, LONG_TOKENS)
            rounds.append(1e3 * (long_s - short_s) / (LONG_TOKENS - SHORT_TOKENS))
    return rounds


async def _answered_s(client: openai.AsyncOpenAI, prompts: Sequence[str], tokens: int) -> float:
    """Seconds until all ``prompts``, sent at once, have an answer of so many tokens."""
    began_s = time.monotonic()
    requests = (
        client.completions.create(
            model=MODEL,
            prompt=prompt,
            max_tokens=tokens,
            temperature=0.0,
            extra_body={"ignore_eos": True},
        )
        for prompt in prompts
    )
    await asyncio.gather(*requests)
    return time.monotonic() - began_s


def cell_of(batch: int, context: int, rounds_ms: list[float]) -> dict[str, Any]:
    return {
        "batch": batch,
        "context": context,
        "step_ms": statistics.median(rounds_ms),
        "rounds_ms": rounds_ms,
    }


def text(request: int, tokens: int) -> str:
    """A prompt of so many tokens, another for each request, the same each time."""
    return " ".join(
        f"w{(request * 7919 + place * 31) % (VOCABULARY - 2) + 2}" for place in range(tokens)
    )


def metrics() -> dict[str, Any]:
    """Our counters, and how many steps the engine itself has counted."""
    with urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    steps: dict[str, float] = {}
    events: dict[str, float] = {}
    engine_steps = 0.0
    for line in lines:
        if found := re.match(r"vllm:mla_tune_(\w+)_total\{(.*)\} (\S+)", line):
            name, labels, value = found.groups()
            if name == "steps":
                told = dict(re.findall(r'(mode|outcome)="(\w+)"', labels))
                key = f"{told['mode']} {told['outcome']}"
                steps[key] = steps.get(key, 0.0) + float(value)
            else:
                events[name] = events.get(name, 0.0) + float(value)
        elif found := re.match(r"vllm:iteration_tokens_total_count\{.*\} (\S+)", line):
            engine_steps += float(found[1])
    return {"steps": steps, "events": events, "engine_steps": engine_steps}


def said(log: Path) -> list[str]:
    """What mla-tune has printed or logged."""
    lines = log.read_text(errors="replace").splitlines()
    return [line[line.index("mla-tune:") :] for line in lines if "mla-tune:" in line]


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, such as w2 and w3."""
    words = {"<s>": 0, "</s>": 1} | {f"w{number}": number for number in range(2, VOCABULARY)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<s>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _write(result: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        write_atomically(out, json.dumps(result, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="TRITON_MLA")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--max-model-len", type=parse_size, default=131072)
    parser.add_argument("--max-num-seqs", type=int, default=128)
    parser.add_argument("--utilization", type=float, default=0.5)
    parser.add_argument("--tune-for", type=float, default=180.0, help="seconds")
    parser.add_argument("--allowance", type=float, default=5.0, help="seconds")
    parser.add_argument("--batches", type=_sizes, default=_sizes("64"))
    parser.add_argument("--contexts", type=_sizes, default=_sizes("4k"))
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--folder", type=Path, help="of model, cache and logs; kept")
    parser.add_argument("--out", type=Path, help="written after every server")
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [parse_size(part) for part in text.split(",")]


if __name__ == "__main__":
    need("vllm", gpu=True)
    sys.exit(main())
