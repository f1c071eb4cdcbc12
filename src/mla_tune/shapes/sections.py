"""The schema of a shapes file: its sections, and the keys of vLLM's configs that it skips."""

__all__ = [
    "KV_CACHE_DTYPES",
    "MODES",
    "OTHER_KV_CACHE_DTYPES",
    "VLLM_MODEL_KEYS",
    "VLLM_ONLY_KEYS",
    "VLLM_RUNNER_KEYS",
    "EagerSection",
    "EngineSection",
    "GraphSection",
    "Grid",
    "ModelSection",
    "RaggedSection",
    "RaggedSpecSection",
    "Range",
    "ShapesSection",
    "SpecRange",
    "WeightedSpec",
]

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mla_tune.errors import InputError, nearest_hint
from mla_tune.quantization import PER_TENSOR, QUANTIZATIONS, UNQUANTIZED
from mla_tune.shapes.batch import MOST_REQUESTS, parse_size
from mla_tune.shapes.ragged import RaggedMix

MODES = ("eager", "graph")
KV_CACHE_DTYPES = ("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla")
# The others of vLLM 0.33's `CacheDType`: spelt right, but no backend here measures them.
OTHER_KV_CACHE_DTYPES = (
    *("float16", "fp8_e5m2", "fp8_inc", "nvfp4_ds_mla", "nvfp4", "nvfp4_4over6"),
    *("turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc"),
    *("octave_k3v4", "octave_k3v3", "octave_k3v3_compact", "ultraquant_4bit"),
    *("int4_per_token_head", "int8_per_token_head", "fp8_per_token_head"),
)

# Keys of vLLM's benchmarks/attention_benchmarks/configs/*.yaml that have no meaning here.
VLLM_ONLY_KEYS = {
    "description": "a title",
    "device": "the command's --device decides",
    "profile_memory": "memory is estimated before allocating",
    "repeats": "samples follow the noise seen",
    "warmup_iters": "warm-up follows the timer",
    "warmup_ms": "warm-up follows the timer",
    "num_layers": "one layer is timed",
    "mode": "every plan is measured in every mode; see engine: {modes: …}",
    "output": "the command's --out decides",
    "parameter_sweep": "all knobs are searched",
    "model_parameter_sweep": "use tensor_parallel_sizes",
    "benchmark": "samples follow the noise seen",
    "compare_auto": "vLLM's own choice is always measured",
    "cuda_graphs": "see engine: {modes: …}",
    "num_splits": "all knobs are searched",
    "nvfp4_output": "not a tuned setting",
    "provenance": "a note",
    "reorder_batch_thresholds": "all knobs are searched",
    "prefill_backends": "every prefill backend that runs here is tried",
    "chunked_prefill": "vLLM's own workspace size is kept",
    "fp8_output_scale": "not a tuned setting",
    "fuse_quant_op": "not a tuned setting",
    "sparse_mla_dense_mha_max_seq_len": "not a tuned setting",
    "sparse_mla_masked_mha_max_seq_len": "not a tuned setting",
    "sparse_mla_mha_variants": "not a tuned setting",
    "sparse_mla_topk_pattern": "top-k slots are drawn at random",
}
# A file with one of these, or with model.num_layers, is one of vLLM's: they speak to its runner.
VLLM_RUNNER_KEYS = frozenset(
    (
        *("benchmark", "cuda_graphs", "device", "profile_memory", "repeats"),
        *("warmup_iters", "warmup_ms", "model_parameter_sweep", "parameter_sweep"),
    )
)
VLLM_MODEL_KEYS = {
    "num_layers": "one layer is timed",
    "block_size": "each backend brings the block size vLLM uses for it",
}


def _size_in_message(value: Any) -> int:
    try:
        return parse_size(value)
    except InputError as error:
        raise ValueError(f"{error.what}; valid: {error.valid}") from None


def _distribution(value: Any) -> Any:
    """Allow a list of lengths where a mapping of length to weight may stand."""
    if isinstance(value, list):
        return dict.fromkeys(value, 1.0)
    return value if isinstance(value, dict) else {value: 1.0}


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _known_quantization(name: str) -> str:
    # What vLLM calls fp8 without a weight_block_size.
    name = {"fp8": PER_TENSOR}.get(name, name)
    if name not in QUANTIZATIONS:
        hint = nearest_hint(name, QUANTIZATIONS)
        told = f"unknown quantization {name[:40]!r}; valid: {', '.join(QUANTIZATIONS)}"
        raise ValueError(f"{told}; {hint}" if hint else told)
    return name


Size = Annotated[int, BeforeValidator(_size_in_message)]
Count = Annotated[int, Field(strict=True, gt=0, le=MOST_REQUESTS)]
# Above that of any layer, and small enough to try every divisor.
Dimension = Annotated[int, Field(strict=True, gt=0, le=65536)]
# Weights are summed and divided by their sum, which has to stay finite.
Weight = Annotated[float, Field(ge=1e-15, le=1e15)]
Sizes = Annotated[list[Size], BeforeValidator(_as_list), Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelSection(_Strict):
    """``model:`` as a mapping, with the keys of vLLM's benchmark."""

    name: str | None = None
    num_q_heads: Dimension | None = None
    kv_lora_rank: Dimension | None = None
    qk_nope_head_dim: Dimension | None = None
    qk_rope_head_dim: Annotated[int, Field(strict=True, ge=0, le=65536)] | None = None
    v_head_dim: Dimension | None = None
    num_kv_heads: Dimension | None = None
    head_dim: Dimension | None = None
    max_model_len: Size | None = None


class WeightedSpec(_Strict):
    """A batch spec with the share of traffic it stands for."""

    spec: str
    weight: Weight = 1.0


class Grid(_Strict):
    """Every combination of batch sizes, query lengths and KV lengths (with their weights)."""

    batch_sizes: Sizes
    query_lens: Sizes = [1]
    kv_lens: Annotated[dict[Size, Weight], BeforeValidator(_distribution), Field(min_length=1)]


class GraphSection(_Strict):
    """Decode as an engine captures it: every captured size, with the KV lengths served there."""

    capture_sizes: Literal["vllm"] | Annotated[list[Count], Field(min_length=1)] = "vllm"
    max_num_seqs: Count = 256
    draft_tokens: Annotated[int, Field(strict=True, ge=0, le=1024)] = 0
    kv_lens: Annotated[dict[Size, Weight], BeforeValidator(_distribution), Field(min_length=1)]
    kv_cache_tokens: Size | None = None


class EagerSection(_Strict):
    """A region of single-token decodes: the smallest and the largest of each."""

    batch_sizes: tuple[Count, Count]
    kv_lens: tuple[Size, Size]
    # From nine on a table proves a model.
    points: Annotated[int, Field(strict=True, ge=9, le=4096)] = 15


class SpecRange(BaseModel):
    """vLLM's ``batch_spec_ranges``: a template and, per placeholder, a range of integers."""

    model_config = ConfigDict(extra="allow")
    template: str


class Range(_Strict):
    """The values of one placeholder of a `SpecRange`."""

    start: Count
    stop: Count
    step: Count = 1
    end_inclusive: bool = True

    def values(self) -> range:
        return range(self.start, self.stop + int(self.end_inclusive), self.step)


class RaggedSection(_Strict):
    """How the KV lengths of the requests in a captured batch differ; see `RaggedMix`."""

    share: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = RaggedMix.share
    sigma: Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)] = RaggedMix.sigma


class RaggedSpecSection(_Strict):
    """A batch spec whose KV length is the mean, with the longest; see `RaggedSpec`."""

    spec: str
    longest: Size
    share: Annotated[float, Field(gt=0, lt=1)]


class EngineSection(_Strict):
    """How production runs the backend: decode under CUDA graphs, the rest eagerly."""

    modes: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)] = ["eager"]
    max_model_len: Size = 131072
    block_size: Annotated[int, Field(strict=True, gt=0, le=2**20)] | None = None
    max_cudagraph_capture_size: Annotated[int, Field(strict=True, gt=0, le=2**20)] | None = None
    ragged: RaggedSection = RaggedSection()

    @model_validator(mode="after")
    def _known_modes(self) -> "EngineSection":
        for mode in self.modes:
            if mode not in MODES:
                raise ValueError(f"unknown mode {mode!r}; valid: {', '.join(MODES)}")
        return self


class ShapesSection(_Strict):
    """The top level of a shapes file."""

    model: str | ModelSection = "deepseek-v3"
    tensor_parallel_sizes: Annotated[list[Count], BeforeValidator(_as_list)] = [1]
    kv_cache_dtype: Annotated[list[str], BeforeValidator(_as_list)] = ["auto"]
    quantization: Annotated[str, AfterValidator(_known_quantization)] = UNQUANTIZED
    engine: EngineSection = EngineSection()
    index_topk: Count | None = None
    batch_specs: list[str | WeightedSpec] = []
    batch_spec_ranges: list[SpecRange] = []
    batch_sizes: list[Count] = []
    grids: list[Grid] = []
    eager: EagerSection | None = None
    graph: GraphSection | None = None
    ragged_specs: list[RaggedSpecSection] = []
    backend: str | None = None
    backends: list[str] = []
    decode_backends: list[str] = []
