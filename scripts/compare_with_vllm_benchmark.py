"""Time ``forward_mqa`` alone as vLLM's own attention benchmark does, and through mla-tune.

Both drive the same kernel with the same plan (the untuned one), in one process, in turns, with the
same timer (Triton's ``do_bench_cudagraph``, as vLLM's ``run_do_bench`` uses it: a warm L2 cache and
many passes in one graph). vLLM's runner fills its cache with zeros, so ours is timed twice: with
zeros too, which is the comparison of like with like, and with the random values that mla-tune
always uses.

    python scripts/compare_with_vllm_benchmark.py --sdist /tmp/vllm-0.26.0 --out agreement.json

``--sdist`` is an unpacked source distribution of the installed vLLM; its files are imported, not
copied.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from needs import need

SPECS = (
    "q1s1k",
    "q1s16k",
    "8q1s1k",
    "8q1s4k",
    "8q1s32k",
    "32q1s1k",
    "32q1s4k",
    "32q1s16k",
    "128q1s512",
    "128q1s1k",
    "128q1s4k",
    "8q4s4k",
)
MAX_MODEL_LEN = 32768
TOLERANCE = 0.03


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    benchmark = options.sdist / "benchmarks" / "attention_benchmarks"
    if not (benchmark / "mla_runner.py").exists():
        print(f"no mla_runner.py in {benchmark}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(benchmark))
    rows = []
    for backend in options.backend:
        rows.extend(compared(backend, options))
    print(table(rows))
    off = [row for row in rows if abs(row["ratio"] - 1) > TOLERANCE]
    print(f"{len(rows) - len(off)} of {len(rows)} medians agree within {TOLERANCE:.0%}")
    if options.out is not None:
        text = json.dumps({"tolerance": TOLERANCE, "rows": rows}, indent=2) + "\n"
        options.out.write_text(text, encoding="utf-8")
    return 1 if off else 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sdist", type=Path, required=True, help="unpacked vLLM source")
    parser.add_argument("--backend", action="append", help="default: FLASHMLA, FLASH_ATTN_MLA")
    parser.add_argument("--spec", action="append", help="batch specs; default: 12 decode shapes")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    options = parser.parse_args(arguments)
    options.backend = options.backend or ["FLASHMLA", "FLASH_ATTN_MLA"]
    options.spec = options.spec or list(SPECS)
    return options


def compared(backend: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of all shapes, vLLM's runner and ours in turns; the median of each over all rounds."""
    ours = Ours(backend, options)
    specs = [spec for spec in options.spec if ours.decodes(spec)]
    theirs_us: dict[str, list[float]] = {spec: [] for spec in specs}
    zeros_us: dict[str, list[float]] = {spec: [] for spec in specs}
    random_us: dict[str, list[float]] = {spec: [] for spec in specs}
    for _ in range(options.rounds):
        for spec, samples in zip(specs, vllm_benchmark(backend, specs, options, ours), strict=True):
            theirs_us[spec].append(samples)
        for spec in specs:
            random_us[spec].append(ours.median_us(spec))
        with_zeros = ours.cache_of_zeros()
        for spec in specs:
            zeros_us[spec].append(ours.median_us(spec))
        with_zeros()
    ours.close()
    return [
        row(backend, options.heads, spec, theirs_us[spec], zeros_us[spec], random_us[spec])
        for spec in specs
    ]


def row(
    backend: str,
    heads: int,
    spec: str,
    theirs_us: list[float],
    zeros_us: list[float],
    random_us: list[float],
) -> dict[str, Any]:
    theirs, zeros = statistics.median(theirs_us), statistics.median(zeros_us)
    return {
        "backend": backend,
        "heads": heads,
        "spec": spec,
        "vllm_us": theirs,
        "mla_tune_us": zeros,
        "ratio": zeros / theirs,
        "mla_tune_random_us": statistics.median(random_us),
        "ratio_random": statistics.median(random_us) / theirs,
        "rounds_vllm_us": theirs_us,
        "rounds_mla_tune_us": zeros_us,
    }


class Ours:
    """A session of mla-tune whose decode kernel is timed by itself."""

    def __init__(self, backend: str, options: argparse.Namespace) -> None:
        from mla_tune.registry import get_backend
        from mla_tune.session import Setup
        from mla_tune.shapes import BatchShape, MlaDimensions

        self.shapes = {spec: BatchShape.parse(spec) for spec in options.spec}
        setup = Setup(
            backend,
            MlaDimensions(options.heads),
            max_model_len=MAX_MODEL_LEN,
            max_num_requests=256,
            max_num_query_tokens=8192,
            device=options.device,
        )
        # A session of vLLM's backends: it can run the kernel alone, which others cannot.
        self.session: Any = get_backend(backend).open(setup)
        self.session.load(list(self.shapes.values()))

    @property
    def block_size(self) -> int:
        return int(self.session.block_size)

    def decodes(self, spec: str) -> bool:
        """Whether the untuned plan sends the whole batch through ``forward_mqa``."""
        shape = self.shapes[spec]
        default = self.session.rules.domain([shape]).default
        taken = self.session.rules.route(shape, default)
        return bool(taken.num_decode_tokens == shape.num_query_tokens)

    def median_us(self, spec: str) -> float:
        shape = self.shapes[spec]
        prepared = self.session.prepare(shape, self.session.plan_space([shape]).default)
        with prepared.decode_kernel(joined_query=self._joined_query()) as kernel:
            return replayed_us(kernel)

    def _joined_query(self) -> bool:
        """Whether vLLM's runner hands this backend one query tensor instead of its two parts."""
        import mla_runner  # type: ignore[import-not-found]

        properties = mla_runner._get_backend_config(self.session.setup.backend)
        return bool(properties["query_format"] == "concat")

    def cache_of_zeros(self) -> Callable[[], None]:
        """Empty the cache, and return what brings its values back."""
        blocks = self.session.cache.blocks
        kept = blocks.cpu()
        blocks.zero_()
        return lambda: blocks.copy_(kept)

    def close(self) -> None:
        self.session.close()


def replayed_us(kernel: Callable[[], Any]) -> float:
    """Time with the benchmark's own function, one pass a layer, one layer."""
    import common  # type: ignore[import-not-found]

    return float(statistics.median(common.run_do_bench(kernel, True)) * 1000)


def vllm_benchmark(
    backend: str, specs: list[str], options: argparse.Namespace, ours: Ours
) -> list[float]:
    """Medians in microseconds of vLLM's runner, which builds its own layer for each call."""
    import common
    import mla_runner
    import torch

    configs = [
        common.BenchmarkConfig(
            backend=backend,
            batch_spec=spec,
            num_layers=1,
            head_dim=576,
            num_q_heads=options.heads,
            num_kv_heads=1,
            block_size=ours.block_size,
            device=options.device,
            max_model_len=MAX_MODEL_LEN,
            dtype=torch.bfloat16,
            use_cuda_graphs=True,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
        )
        for spec in specs
    ]
    return [result.median_time * 1e6 for result in mla_runner.run_mla_benchmark(backend, configs)]


def table(rows: list[dict[str, Any]]) -> str:
    titles = ("vLLM µs", "ours µs", "ratio", "random")
    lines = [
        f"{'backend':16} {'shape':12} {titles[0]:>9} {titles[1]:>9} {titles[2]:>7} {titles[3]:>7}"
    ]
    lines += [
        f"{r['backend']:16} {r['spec']:12} {r['vllm_us']:9.2f} {r['mla_tune_us']:9.2f} "
        f"{r['ratio']:7.3f} {r['ratio_random']:7.3f}"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    need("vllm", gpu=True)
    sys.exit(main())
