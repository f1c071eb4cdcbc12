"""vLLM's MLA backends: what each is, and whether it runs here, without importing vLLM."""

__all__ = ["BACKENDS", "VllmBackend"]

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from mla_tune.environment import Environment, described
from mla_tune.errors import UnavailableError
from mla_tune.plan.domains import DOMAINS, Domain
from mla_tune.quantization import QUANTIZATIONS
from mla_tune.session import Backend, Session, Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.cutlass_workspace import MOST_SPLITS, workspace_bytes

DENSE_DTYPES = ("auto", "bfloat16", "fp8", "fp8_e4m3")
# Decode blocks of speculative decoding have 1 + k tokens; longer queries are chunks of prompts,
# which vLLM never captures.
LONGEST_CAPTURED_QUERY = 16
# Rows of the buffer that a prefill's context is gathered into, chunk by chunk, in every release.
CONTEXT_ROWS = 64 * 1024


@dataclass(frozen=True)
class VllmBackend:
    """The facts about one backend of vLLM.

    Attributes:
        module: its file below ``vllm/v1/attention/backends/mla/``, without the suffix.
        majors: compute capabilities (major) that its kernels exist for; empty for all.
        sparse: whether it attends to the top-k tokens that an indexer picked.
        extension: a file (with wildcards, below the package ``vllm``) or the name of a package
            that its kernels are in; empty for none.
    """

    name: str
    module: str
    majors: tuple[int, ...]
    kv_cache_dtypes: tuple[str, ...] = DENSE_DTYPES
    sparse: bool = False
    extension: str = ""

    @property
    def domain(self) -> Domain:
        return DOMAINS[self.name]

    @property
    def quantizations(self) -> tuple[str, ...]:
        """Of ``kv_b_proj``; a session says what the release and the GPU cannot."""
        return QUANTIZATIONS

    @property
    def modes(self) -> tuple[str, ...]:
        """Where it runs in production: captured decode and eager batches, or only the latter."""
        return ("eager", "graph") if compat.captured(self.name) else ("eager",)

    @property
    def knobs(self) -> tuple[str, ...]:
        """The knobs it has in the installed release."""
        has_threshold = compat.decodes_uniform(self.name)
        return (
            *(("reorder_batch_threshold",) if has_threshold else ()),
            *(("num_kv_splits",) if self.domain.splits else ()),
            "prefill_backend",
        )

    def unavailable(self, environment: Environment) -> str | None:
        if "vllm" not in environment.software:
            return "vLLM is not installed: pip install 'mla-tune[vllm]'"
        if reason := compat.supported_release():
            return reason
        if compat.backend_source(self.module) is None:
            return f"vLLM {environment.software['vllm']} has no backend {self.name}"
        return self._hardware_problem(environment) or self._extension_problem()

    def _hardware_problem(self, environment: Environment) -> str | None:
        if environment.is_hip:
            return f"needs an NVIDIA GPU, this is {environment.device_name} (HIP)"
        if not environment.is_cuda:
            if self.name == "TRITON_MLA" and os.environ.get("TRITON_INTERPRET") == "1":
                return None
            return f"needs a CUDA GPU, this is {environment.device_name}"
        major, minor = environment.capability
        if self.majors and major not in self.majors:
            needed = " or ".join(f"{number}.x" for number in self.majors)
            here = f"{major}.{minor} ({environment.device_name})"
            return f"needs compute capability {needed}, this is {here}"
        return None

    def _extension_problem(self) -> str | None:
        if not self.extension:
            return None
        if "*" not in self.extension:
            if importlib.util.find_spec(self.extension) is None:
                return f"the package {self.extension} is not installed"
            return None
        spec = importlib.util.find_spec("vllm")
        if spec is None or spec.origin is None:
            return None
        if not any(Path(spec.origin).parent.glob(self.extension)):
            return f"this build of vLLM lacks its extension {self.extension}"
        return None

    def supports(self, mode: str, shape: BatchShape, capture_size: int | None = None) -> str | None:
        """Why ``shape`` cannot be tuned in ``mode``, or None when it can.

        Any batch runs eagerly; captured are decode batches of one query length, and tuned for
        graphs are those of one KV length.
        """
        if mode not in self.modes:
            return f"{self.name} of this vLLM is not captured into CUDA graphs"
        if mode == "eager":
            return None
        if not shape.is_uniform:
            return "CUDA graphs are captured for one query length at a time"
        if len(shape.groups) > 1:
            # A replay is looked up by its graph's batch size, which says nothing of such lengths.
            return "a graph's entry is found by batch size, for requests of one KV length each"
        if shape.is_pure_prefill and shape.max_query_len > 1:
            return "a prefill without context is never captured"
        longest = LONGEST_CAPTURED_QUERY if compat.decodes_uniform(self.name) else 1
        if shape.max_query_len > longest:
            return f"CUDA graphs of {self.name} are captured up to query length {longest}"
        limit = capture_size
        if limit is None:
            limit = compat.graph_capture_limit(self.majors[0] if len(self.majors) == 1 else 0)
        if shape.num_query_tokens > limit:
            return f"CUDA graphs are captured up to {limit} tokens"
        return None

    def estimate_bytes(self, setup: Setup, shape: BatchShape) -> int:
        return (
            self._cache_bytes(setup, shape)
            + self._decode_bytes(setup, shape)
            + self._prefill_bytes(setup, shape)
        )

    def _cache_bytes(self, setup: Setup, shape: BatchShape) -> int:
        """Latents, block table, queries, outputs, and indices of a sparse backend."""
        model, tokens = setup.model, shape.num_query_tokens
        block_size = setup.block_size or self.domain.block_sizes[0]
        blocks = 1 + sum(g.count * -(-g.kv_len // block_size) for g in shape.groups)
        width = {"fp8_ds_mla": 656}.get(setup.kv_cache_dtype, model.latent_dim)
        if not setup.kv_cache_dtype.startswith("fp8"):
            width *= 2
        table = shape.num_requests * -(-setup.max_model_len // block_size) * 4
        per_token = 2 * model.num_q_heads * (model.qk_head_dim + model.v_head_dim)
        # Drawn in float32 first, and the correctness check holds the output in float64 twice.
        per_token += model.num_q_heads * (4 * model.qk_head_dim + 16 * model.v_head_dim)
        indices = 8 * setup.index_topk * tokens if self.sparse else 0
        # The cache is filled from random values that are drawn in pieces, in float32.
        cache = blocks * block_size * width + 2**28
        return cache + table + tokens * per_token + indices

    def _decode_bytes(self, setup: Setup, shape: BatchShape) -> int:
        """The absorbed query and its result, and the partial results of the splits."""
        model = setup.model
        tokens = shape.num_query_tokens
        absorbed = 2 * 2 * tokens * model.num_q_heads * (model.latent_dim + model.kv_lora_rank)
        per_split = model.num_q_heads * (model.kv_lora_rank + 1) * 4
        if self.name == "TRITON_MLA":
            # vLLM reserves for the longest sequence: 256 splits from 64k on, 264 at most.
            splits = min(256, max(1, setup.max_model_len // 512))
            workspace = setup.max_num_requests * per_split * splits
            return absorbed + max(workspace, 8 * 2**30 if tokens > setup.max_num_requests else 0)
        if self.name == "FLASH_ATTN_MLA":
            return absorbed + max(min(tokens, 512) * per_split * 32, 2 * 2**30)
        if self.name == "CUTLASS_MLA":
            return absorbed + workspace_bytes(setup.max_num_requests, MOST_SPLITS)
        return absorbed

    def _prefill_bytes(self, setup: Setup, shape: BatchShape) -> int:
        """The gathered context, and keys and values up-projected from it and from new tokens."""
        model = setup.model
        workspace = CONTEXT_ROWS * model.latent_dim * 2
        if self.sparse:
            workspace += 5 * setup.max_model_len * model.latent_dim * 2
        if shape.max_query_len == 1:
            return workspace
        rows = min(CONTEXT_ROWS, shape.num_kv_tokens) + shape.num_query_tokens
        # kv_b_proj's result, the assembled keys, and values padded to the keys' width.
        up_projected = model.qk_nope_head_dim + model.v_head_dim + 2 * model.qk_head_dim
        partial = 3 * shape.num_query_tokens * model.num_q_heads * model.qk_head_dim * 2
        return workspace + rows * model.num_q_heads * up_projected * 2 + partial

    def open(self, setup: Setup) -> Session:
        if reason := self.unavailable(described(setup.device)):
            raise UnavailableError(f"{self.name}: {reason}")
        if setup.kv_cache_dtype not in self.kv_cache_dtypes:
            raise UnavailableError(
                f"{self.name} has no KV cache of dtype {setup.kv_cache_dtype!r}",
                valid=", ".join(self.kv_cache_dtypes),
            )
        from mla_tune.vllm.session.parts import build_parts
        from mla_tune.vllm.session.session import VllmSession

        return VllmSession(setup, build_parts(setup, sparse=self.sparse))


_FLASHMLA = "_flashmla_C*.so"
_FLASH_ATTN_3 = "vllm_flash_attn/_vllm_fa3_C*.so"

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        VllmBackend("TRITON_MLA", "triton_mla", ()),
        VllmBackend(
            "FLASH_ATTN_MLA",
            "flashattn_mla",
            (9,),
            kv_cache_dtypes=("auto", "bfloat16"),
            extension=_FLASH_ATTN_3,
        ),
        VllmBackend("FLASHMLA", "flashmla", (9,), extension=_FLASHMLA),
        VllmBackend("CUTLASS_MLA", "cutlass_mla", (10,)),
        VllmBackend("FLASHINFER_MLA", "flashinfer_mla", (10,), extension="flashinfer"),
        VllmBackend(
            "TOKENSPEED_MLA",
            "tokenspeed_mla",
            (10,),
            kv_cache_dtypes=("fp8", "fp8_e4m3"),
            extension="tokenspeed_mla",
        ),
        VllmBackend(
            "FLASHMLA_SPARSE",
            "flashmla_sparse",
            (9, 10),
            kv_cache_dtypes=("auto", "bfloat16", "fp8_ds_mla"),
            sparse=True,
            extension=_FLASHMLA,
        ),
        VllmBackend(
            "FLASH_ATTN_MLA_SPARSE",
            "flashattn_mla_sparse",
            (9,),
            kv_cache_dtypes=("auto", "bfloat16"),
            sparse=True,
            extension=_FLASH_ATTN_3,
        ),
        VllmBackend(
            "FLASHINFER_MLA_SPARSE",
            "flashinfer_mla_sparse",
            (10,),
            sparse=True,
            extension="flashinfer",
        ),
    )
}
