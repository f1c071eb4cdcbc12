"""Whether the plugin's values reach the kernels of the installed vLLM on this GPU, in a minute.

Builds the real layer and builder of each backend through vLLM's registry, with a table that asks
for something vLLM would not do, and runs one batch. Exits 1 if a value did not arrive, or if the
result is not that of a float64 reference.

    python scripts/check_runtime.py [TRITON_MLA FLASH_ATTN_MLA FLASHMLA …]
"""

import os
import sys

from asked_tables import write_tables
from mla_tune.environment import probe
from mla_tune.plan.plan import Plan
from mla_tune.registry import get_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.plugin import register
from needs import need
from one_step import arrival_problem, one_step

MODEL = MlaDimensions(num_q_heads=16)
MAX_MODEL_LEN = 32768
# By default TRITON_MLA takes 2 splits of 1k; FLASH_ATTN_MLA has no cap outside the graphs' sizes
# and one of 32 within; queries of 256 take the decode path of FLASH_ATTN_MLA, not of FLASHMLA,
# and those of 64 that of the sparse ones.
CHECKS = {
    "TRITON_MLA": {
        "8q1s1k": Plan(num_kv_splits=16),
        "16q1s2k": Plan(num_kv_splits=8, block_n=64, num_warps=8, num_stages=1),
    },
    "FLASH_ATTN_MLA": {
        "8q1s1k": Plan(num_kv_splits=8),
        "4q256s1k": Plan(reorder_batch_threshold=128),
    },
    "FLASHMLA": {"4q256s1k": Plan(reorder_batch_threshold=256)},
    "FLASHMLA_SPARSE": {"8q64s1k": Plan(reorder_batch_threshold=1)},
    "FLASH_ATTN_MLA_SPARSE": {"8q64s1k": Plan(reorder_batch_threshold=1)},
}


def main() -> int:
    names = sys.argv[1:] or list(CHECKS)
    environment = probe("cuda:0")
    asked = {(name, "eager"): CHECKS[name] for name in names}
    tables = write_tables(asked, environment, MODEL, MAX_MODEL_LEN)
    # The second for sparse backends, whose tables act by it alone.
    os.environ |= {"MLA_TUNE_TABLES": str(tables), "MLA_TUNE_UNPROVEN": "1"}
    register()
    failed = False
    for name in names:
        reason = get_backend(name).unavailable(environment)
        if reason is not None:
            print(f"{name}: not here: {reason}")
            continue
        for spec in CHECKS[name]:
            problem = _check(name, BatchShape.parse(spec))
            failed |= bool(problem)
            print(f"{name} {spec} ({CHECKS[name][spec]}): {problem or 'reached the kernel'}")
    return int(failed)


def _check(name: str, shape: BatchShape) -> str:
    """Run ``shape`` once; return what is wrong, or an empty string."""
    from mla_tune.registry import vllm_backend
    from mla_tune.vllm.session.parts import build_parts
    from mla_tune.vllm.session.session import VllmSession

    setup = Setup(name, MODEL, max_model_len=MAX_MODEL_LEN, device="cuda:0")
    parts = build_parts(setup, vllm_backend(name))
    builder, session = parts.builder, VllmSession(setup, parts)
    if not hasattr(builder, "mla_tune_backend"):
        return "the registry gave vLLM's own builder"
    verified = builder.step_policy.deployment.counts.verified
    session.load([shape])
    _, apart = one_step(session, shape)
    counts = builder.step_policy.deployment.counts
    session.close()
    return arrival_problem(counts, verified, apart)


if __name__ == "__main__":
    need("vllm", gpu=True)
    sys.exit(main())
