import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shapes_files import refusal, specs

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes import PRESETS
from mla_tune.shapes.file import load_shapes


def test_a_model_and_batch_specs_are_all_a_small_file_needs(write):
    file = load_shapes(write("model: deepseek-v2-lite\nbatch_specs: [8q1s1k, q2k]\n"))
    assert file.models == (PRESETS["deepseek-v2-lite"],)
    assert specs(file) == ["8q1s1k", "q2k"]
    assert (file.kv_cache_dtypes, file.modes, file.max_model_len) == (("auto",), ("eager",), 131072)
    assert file.notices == ()


def test_the_engines_settings_are_vllms_own_unless_given(write):
    file = load_shapes(write("batch_specs: [q1]\n"))
    assert file.quantization == "none"
    assert (file.block_size, file.max_cudagraph_capture_size) == (None, None)
    text = "engine: {block_size: 64, max_cudagraph_capture_size: 256}\nquantization: fp8\n"
    file = load_shapes(write(text + "batch_specs: [q1]\n"))
    assert file.quantization == "fp8_per_tensor"
    assert (file.block_size, file.max_cudagraph_capture_size) == (64, 256)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quantization: fp8_per_blok\n", ":1: quantization: unknown quantization 'fp8_per_blok'"),
        ("quantization: 8\n", ":1: quantization"),
        ("engine: {block_size: 0}\n", ":1: engine.block_size"),
        ("engine: {block_size: 64k}\n", ":1: engine.block_size"),
        ("engine: {max_cudagraph_capture_size: -1}\n", ":1: engine.max_cudagraph_capture_size"),
    ],
)
def test_settings_that_no_engine_has_are_refused_by_line(write, text, says):
    assert says in refusal(write(text + "batch_specs: [q1]\n"))


def test_the_longest_shape_raises_an_unstated_max_model_len(write):
    assert load_shapes(write("batch_specs: [q1s200k]\n")).max_model_len == 200 * 1024


HEAD = "model: deepseek-v2-lite\n"
BAD = {
    "empty": ("", "is empty"),
    "not a mapping": ("- q1\n", "not a mapping"),
    "unknown key": (HEAD + "batch_spec: [q1]\n", ":2: unknown key 'batch_spec'"),
    "unknown key of the model": ("model: {num_heads: 2}\nbatch_specs: [q1]\n", "'num_q_heads'"),
    "unknown key of a spec": (
        HEAD + "batch_specs:\n  - {spec: q1, wieght: 2}\n",
        ":3: unknown key 'batch_specs.0.wieght'",
    ),
    "unknown model": ("model: deepsek-v3\nbatch_specs: [q1]\n", "did you mean 'deepseek-v3'?"),
    "unknown dtype": (HEAD + "kv_cache_dtype: fp9\nbatch_specs: [q1]\n", "'fp9'"),
    "a dtype of vLLM's": (
        HEAD + "kv_cache_dtype: [auto, fp8_e5m2]\nbatch_specs: [q1]\n",
        ":2: no MLA backend is tuned for vLLM's KV cache dtype 'fp8_e5m2'",
    ),
    "unknown mode": (HEAD + "engine: {modes: gaph}\nbatch_specs: [q1]\n", "unknown mode 'gaph'"),
    "bad spec": (HEAD + "batch_specs:\n  - q1\n  - 8x1\n", ":4: batch spec '8x1'"),
    "KV below query": (HEAD + "batch_specs: [q64s32]\n", "KV length 32 below its query length 64"),
    "zero count": (HEAD + "batch_specs: [0q1s1k]\n", "zero"),
    "no shapes": (HEAD, "no batch shapes"),
    "empty list": (HEAD + "batch_specs: []\n", "no batch shapes"),
    "duplicate": (HEAD + "batch_specs:\n  - q1s1k\n  - q1s1024\n", ":4: batch shape 'q1s1k'"),
    "negative batch size": (HEAD + "batch_specs: [q1]\nbatch_sizes: [-1]\n", ":3: batch_sizes.0"),
    "zero heads": ("model: {num_q_heads: 0}\nbatch_specs: [q1]\n", "model.num_q_heads"),
    "weight of zero": (HEAD + "batch_specs: [{spec: q1, weight: 0}]\n", "weight"),
    "weight of nan": (HEAD + "batch_specs: [{spec: q1, weight: .nan}]\n", "weight"),
    "grid without lengths": (HEAD + "grids: [{batch_sizes: [1]}]\n", "'grids.0.kv_lens' is miss"),
    "grid with KV below query": (
        HEAD + "grids: [{batch_sizes: [1], query_lens: [64], kv_lens: [32]}]\n",
        "query length 64 with KV length 32",
    ),
    "grid with zero": (HEAD + "grids: [{batch_sizes: [0], kv_lens: [32]}]\n", "not 0"),
    "range without bounds": (
        HEAD + 'batch_spec_ranges: [{template: "q{n}", n: {start: 1}}]\n',
        "start: N, stop: N",
    ),
    "range of a billion": (
        HEAD + 'batch_spec_ranges: [{template: "q{n}", n: {start: 1, stop: 999999999}}]\n',
        ":2: more than 10000 batch shapes",
    ),
    "batch size of 10^400": (
        HEAD + f"batch_specs: [q1]\nbatch_sizes: [{10**400}]\n",
        ":3: batch_sizes.0: Input should be less than or equal to 999999999",
    ),
    "more requests than a key can hold": (
        HEAD + "batch_specs: [99999q1]\nbatch_sizes: [99999]\n",
        ":2: '99999q1' times the batch size 99999 are 9999800001 requests",
    ),
    "heads of 10^400": (
        f"model: {{num_q_heads: {10**400}}}\nbatch_specs: [q1]\ntensor_parallel_sizes: [3]\n",
        ":1: model.num_q_heads: Input should be less than or equal to 65536",
    ),
    "weights whose sum is infinite": (
        HEAD + "batch_specs: [{spec: q1, weight: 1.0e+308}, {spec: q2, weight: 1.0e+308}]\n",
        "less than or equal to",
    ),
    "octal": (
        HEAD + "batch_specs: [q1]\nbatch_sizes: [010]\n",
        ":3: 010 is 8 in YAML",
    ),
    "sexagesimal": (HEAD + "grids: [{batch_sizes: 1:30, kv_lens: 1k}]\n", ":2: 1:30 is 90"),
    "placeholder without range": (
        HEAD + 'batch_spec_ranges: [{template: "q{n}"}]\n',
        "placeholder without a range",
    ),
    "heads that do not divide": (
        HEAD + "tensor_parallel_sizes: [3]\nbatch_specs: [q1]\n",
        ":2: tensor-parallel size 3 does not divide 16",
    ),
    "head_dim that contradicts": (
        "model: {num_q_heads: 2, head_dim: 100}\nbatch_specs: [q1]\n",
        "head_dim is 100",
    ),
    "max_model_len too short": (
        HEAD + "engine: {max_model_len: 4k}\nbatch_specs: [q1s8k]\n",
        ":2: max_model_len 4096 is below",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_says_where_and_what(write, case):
    text, says = BAD[case]
    path = write(text)
    found = refusal(path)
    assert str(path) in found
    assert says in found


@pytest.mark.parametrize(
    "case", ["unknown key", "unknown model", "unknown dtype", "bad spec", "no shapes",
             "heads that do not divide"],
)  # fmt: skip
def test_a_refusal_says_what_is_valid(write, case):
    assert "\n  valid: " in refusal(write(BAD[case][0]))


def test_the_text_is_not_parsed_again_for_each_shape(write, monkeypatch):
    parsed = []
    lines = Document.lines

    def counted(document, depth):
        parsed.append(depth)
        return lines(document, depth)

    monkeypatch.setattr(Document, "lines", counted)
    many = ", ".join(f"q1s{kv_len}" for kv_len in range(1, 301))
    unknown = "".join(f"key_{number}: 1\n" for number in range(50))
    file = load_shapes(write(f"repeats: 5\nbatch_specs: [{many}]\n{unknown}"))
    assert len(file.cases) == 300
    assert len(file.notices) == 51
    assert len(parsed) <= 2


KEYS = [
    *("model", "num_q_heads", "name", "batch_specs", "spec", "weight", "batch_sizes", "grids"),
    *("kv_lens", "batch_spec_ranges", "template", "n", "start", "stop", "engine", "modes"),
    *("backend", "kv_cache_dtype", "tensor_parallel_sizes", "index_topk", "device", "CUTLASS"),
]
WORDS = ["q1", "8q1s1k", "q64s32", "", "1k", "deepseek-v3", "q{n}", "{", "eager"]
leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.dates()),
    st.sampled_from(WORDS),
)
junk = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers(0, 2), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), junk, min_size=1, max_size=5))
@example({"model": {1: 2}})
@example({"batch_spec_ranges": [{"template": "q{n}", "n": {"start": 1, "stop": 2}, 1: 2}]})
def test_any_yaml_is_read_or_refused_but_never_crashes(write, data):
    path = write(yaml.safe_dump(data))
    try:
        load_shapes(path)
        refused = ""
    except InputError as error:
        refused = error.what
    assert not refused or str(path) in refused
