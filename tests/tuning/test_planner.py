from dataclasses import replace

import pytest

from fake_device import ENVIRONMENT, GIB
from mla_tune.errors import InputError, UnavailableError
from mla_tune.registry import get_backend
from mla_tune.shapes.file import load_shapes
from mla_tune.table.naming import table_path
from mla_tune.tuning.planner import Planner
from mla_tune.vllm import compat
from mla_tune.vllm.backend import VllmBackend

HEAD = "model: {num_q_heads: 2, kv_lora_rank: 32}\n"


@pytest.fixture
def planned(write, tmp_path):
    """The table jobs for a shapes file, and what was skipped."""

    def plan(text, *backends, free_bytes=8 * GIB):
        skipped = []
        shapes = load_shapes(write(HEAD + text))
        planner = Planner(ENVIRONMENT, "cpu", free_bytes, shapes, tmp_path / "out", skipped.append)
        return planner.jobs(backends), skipped

    return plan


def test_there_is_a_table_for_each_model_and_dtype(planned):
    text = "batch_specs: [q1]\ntensor_parallel_sizes: [1, 2]\nkv_cache_dtype: [auto, bfloat16]\n"
    jobs, _ = planned(text, "TORCH_MLA")
    found = {(a.header.model["num_q_heads"], a.header.kv_cache_dtype) for a in jobs}
    assert found == {(2, "auto"), (2, "bfloat16"), (1, "auto"), (1, "bfloat16")}
    assert len({a.path for a in jobs}) == 4


def test_a_setup_is_made_for_the_largest_of_its_shapes(planned):
    (job,), _ = planned("batch_specs: [8q1s1k, 2q64s1k]\n", "TORCH_MLA")
    assert job.setup.max_num_requests == 8
    assert job.setup.max_num_query_tokens == 128
    assert [str(workload) for workload in job.workloads] == ["8q1s1k", "2q64s1k"]


def test_launches_are_tried_where_they_are_asked_for_and_the_backend_has_them(
    write, tmp_path, graphs_run, monkeypatch
):
    del graphs_run
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    shapes = load_shapes(write(HEAD + "batch_specs: [q1s1k]\nbackends: [TRITON_MLA, FLASHMLA]\n"))
    gpu = replace(ENVIRONMENT, compute_capability="9.0")
    for asked, tried in (("few", True), ("all", True), ("none", False), (None, False)):
        planner = Planner(gpu, "cuda", 64 * GIB, shapes, tmp_path, lambda _: None, launches=asked)
        found = {job.setup.backend: job.setup.launches for job in planner.jobs([])}
        assert found == {"TRITON_MLA": tried, "FLASHMLA": False}


def test_what_a_backend_does_not_have_is_named_and_skipped(planned):
    jobs, skipped = planned("batch_specs: [q1]\nkv_cache_dtype: [fp8, auto]\n", "TORCH_MLA")
    assert len(jobs) == 1
    assert skipped == ["TORCH_MLA: fp8 skipped: it has auto, bfloat16"]


def test_when_nothing_is_left_the_file_is_refused(planned):
    with pytest.raises(InputError, match="nothing to tune for TORCH_MLA"):
        planned("batch_specs: [q1]\nengine: {modes: graph}\n", "TORCH_MLA")


@pytest.fixture
def graphs_run(monkeypatch):
    """A GPU on which FLASH_ATTN_MLA's graphs could be captured."""
    backend = get_backend("FLASH_ATTN_MLA")
    monkeypatch.setattr(type(backend), "unavailable", lambda *_: None)
    monkeypatch.setattr(compat, "release", lambda: (0, 32, 0))


@pytest.mark.usefixtures("graphs_run")
def test_a_ragged_decode_batch_is_not_tuned_for_graphs_which_could_never_look_it_up(planned):
    text = "batch_specs: [8q1s1k, q1s32k_7q1s512]\nengine: {modes: [graph, eager]}\n"
    jobs, skipped = planned(text, "FLASH_ATTN_MLA")
    found = {a.setup.mode: [str(w) for w in a.workloads] for a in jobs}
    assert found == {"graph": ["8q1s1k"], "eager": ["8q1s1k", "q1s32k_7q1s512"]}
    assert any("1 skipped (q1s32k_7q1s512): a graph's entry is found by" in s for s in skipped)
    with pytest.raises(InputError, match="nothing to tune for FLASH_ATTN_MLA"):
        planned("batch_specs: [q1s32k_7q1s512]\nengine: {modes: graph}\n", "FLASH_ATTN_MLA")


def test_backends_of_the_file_that_do_not_run_here_are_named_and_skipped(planned):
    jobs, skipped = planned("batch_specs: [q1]\nbackends: [TORCH_MLA, flashmla, flux]\n")
    assert [a.setup.backend for a in jobs] == ["TORCH_MLA"]
    assert any(line.startswith("FLASHMLA: skipped") for line in skipped)
    assert any(line.startswith("flux: skipped: is not an MLA backend") for line in skipped)


def test_a_backend_that_was_asked_for_has_to_run(planned):
    with pytest.raises(UnavailableError) as caught:
        planned("batch_specs: [q1]\n", "TORCH_MLA", "FLASHMLA")
    assert caught.value.what.startswith("FLASHMLA ")
    assert caught.value.valid == "available here: TORCH_MLA"


def test_memory_is_estimated_before_anything_is_allocated(planned):
    text = "batch_specs: [8q1s1k, 64q1s64k]\n"
    planned(text, "TORCH_MLA")
    with pytest.raises(InputError) as caught:
        planned(text, "TORCH_MLA", free_bytes=GIB)
    assert "64q1s64k needs about" in caught.value.what
    assert "1.0 GiB are free on cpu" in caught.value.what


def test_a_tables_name_holds_what_tells_it_from_others(tmp_path, planned):
    (job,), _ = planned("batch_specs: [q1]\n", "TORCH_MLA")
    assert job.path.name == ("TORCH_MLA-Fake_Device-heads_2-dims_32_128_64_128-kv_auto-eager.yaml")
    software = {"vllm": "0.26.0"}
    header = job.header.model_copy(update={"backend": "TRITON_MLA", "software": software})
    assert table_path(tmp_path, header).name.endswith("-vllm_0.26.0.yaml")


def test_headers_follow_the_environment(planned):
    (job,), _ = planned("batch_specs: [q1]\n", "TORCH_MLA")
    device = job.header.device
    assert (device.name, device.sm_count) == ("Fake Device", 2)
    assert replace(ENVIRONMENT, sm_count=4).sm_count != device.sm_count


@pytest.fixture
def on_a_gpu(write, tmp_path, monkeypatch):
    """The table jobs of vLLM's backends on a GPU, for a shapes file."""
    monkeypatch.setattr(VllmBackend, "unavailable", lambda *_: None)
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))

    def plan(text, *backends, capability="9.0"):
        skipped = []
        shapes = load_shapes(write("batch_specs: [8q1s1k, 600q1s1k]\n" + text))
        gpu = replace(ENVIRONMENT, compute_capability=capability, software={"vllm": "0.33.0"})
        planner = Planner(gpu, "cuda", 64 * GIB, shapes, tmp_path / "out", skipped.append)
        return planner.jobs(backends), skipped

    return plan


def test_a_header_says_vllms_own_settings_as_well(on_a_gpu):
    (job,), _ = on_a_gpu("", "FLASHMLA")
    engine = job.header.engine
    assert (engine.block_size, engine.max_cudagraph_capture_size) == (64, 512)
    assert job.header.quantization == "none"
    assert job.path.name == "FLASHMLA-Fake_Device-heads_128-kv_auto-eager-vllm_0.33.0.yaml"


def test_settings_of_the_engine_reach_session_header_and_name(on_a_gpu):
    text = (
        "engine: {block_size: 64, max_cudagraph_capture_size: 640}\nquantization: fp8_per_block\n"
    )
    (job,), _ = on_a_gpu(text, "TRITON_MLA")
    setup, header = job.setup, job.header
    assert (setup.block_size, setup.max_cudagraph_capture_size) == (64, 640)
    assert (header.engine.block_size, header.engine.max_cudagraph_capture_size) == (64, 640)
    assert setup.quantization == header.quantization == "fp8_per_block"
    assert "-eager-fp8_per_block-block_64-capture_640-vllm" in job.path.name


def test_graphs_are_tuned_up_to_the_largest_capture(on_a_gpu):
    text = "engine: {modes: graph, max_cudagraph_capture_size: 1024}\n"
    (job,), skipped = on_a_gpu(text, "FLASH_ATTN_MLA")
    assert [str(w) for w in job.workloads] == ["8q1s1k", "600q1s1k"]
    assert not any("captured" in said for said in skipped)
    (job,), skipped = on_a_gpu("engine: {modes: graph}\n", "TRITON_MLA")
    assert "captured up to 512 tokens" in skipped[0]
    (job,), skipped = on_a_gpu("engine: {modes: graph}\n", "TRITON_MLA", capability="10.0")
    assert not any("captured" in said for said in skipped)


def test_a_block_size_that_a_backend_does_not_take_is_named_and_skipped(on_a_gpu):
    (job,), skipped = on_a_gpu("engine: {block_size: 128}\n", "FLASHMLA", "TRITON_MLA")
    assert job.setup.backend == "TRITON_MLA"
    assert skipped == ["FLASHMLA: skipped: block size 128, it takes 64"]


def test_weights_that_a_backend_cannot_have_are_named(planned):
    with pytest.raises(InputError, match="nothing to tune for TORCH_MLA"):
        planned("batch_specs: [q1]\nquantization: fp8_per_tensor\n", "TORCH_MLA")


GRAPH_ONLY = "engine: {modes: graph, max_model_len: 65536, ragged: {share: 0}}\n"


@pytest.fixture
def guards_of(write, tmp_path, monkeypatch):
    """The measured keys of FLASH_ATTN_MLA's graphs on an H100, and what was skipped."""
    monkeypatch.setattr(VllmBackend, "unavailable", lambda *_: None)
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    gpu = replace(ENVIRONMENT, compute_capability="9.0", software={"vllm": "0.33.0"})

    def plan(text, free_bytes=64 * GIB, **changes):
        skipped = []
        shapes = replace(load_shapes(write("model: deepseek-v2-lite\n" + text)), **changes)
        planner = Planner(gpu, "cuda", free_bytes, shapes, tmp_path / "out", skipped.append)
        (job,) = planner.jobs(["FLASH_ATTN_MLA"])
        return [workload.measured_key for workload in job.workloads], skipped

    return plan


def test_a_graphs_workload_is_guarded_up_to_what_the_engine_serves(guards_of):
    listed = "batch_specs: [8q1s1k, 8q1s16k]\n"
    assert guards_of(GRAPH_ONLY + listed) == (["8q1s{1k,16k}+{256,4k,32k,64k}"], [])
    assert guards_of(GRAPH_ONLY + listed, max_tokens=8 * 20_000)[0] == [
        "8q1s{1k,16k}+{256,4k,20000}"
    ]
    section = "graph: {capture_sizes: [1, 64], kv_lens: [1k, 4k], kv_cache_tokens: 1000000}\n"
    assert guards_of(GRAPH_ONLY + section) == (
        ["q1s{1k,4k}+{256,8k,16k,32k,64k}", "64q1s{1k,4k}+{256,8k,15625}"],
        [],
    )


def test_guards_beyond_the_memory_are_left_out_and_that_is_said(guards_of):
    found, skipped = guards_of(GRAPH_ONLY + "batch_specs: [q1s1k, 512q1s1k]\n", 40 * GIB)
    assert found == ["q1s1k+{256,2k,4k,8k,16k,32k,64k}", "512q1s1k+{256,2k,4k,8k,18k}"]
    assert "1 batch sizes can be measured to less" in skipped[0]
    assert "(512 requests to 18432 tokens)" in skipped[0]


def test_a_graphs_workload_has_ragged_batches_within_what_the_engine_serves(guards_of):
    engine = "engine: {modes: graph, max_model_len: 65536}\n"
    section = "graph: {capture_sizes: [2, 64], kv_lens: 1k, kv_cache_tokens: 100000}\n"
    (pair, many), _ = guards_of(engine + section)
    assert "+q1s1632_q1s416+" in pair
    assert "+q1s64k_q1s1k" in pair
    # 100,000 tokens hold 64 times 1k and no more than 34,464 beyond.
    assert many.split("+")[-1] == f"q1s{100_000 - 63 * 1024}_63q1s1k"
    # And ragged batches about the lengths of the guards.
    assert "+{256,2k,4k,8k,16k,32k,50000}+" in pair
    assert "+q1s52032_q1s13504+" in pair


def test_ragged_batches_as_served_are_of_their_size_and_those_of_others_are_named(guards_of):
    text = (
        "engine: {modes: graph, max_model_len: 65536}\n"
        "graph: {capture_sizes: [2, 4], kv_lens: 1k, kv_cache_tokens: 100000}\nragged_specs:\n"
        "- {spec: 2q1s2k, longest: 3k, share: 0.5}\n- {spec: 24q1s1k, longest: 2k, share: 0.5}\n"
    )
    (pair, four), skipped = guards_of(text)
    assert "+q1s3k_q1s1k+" in pair
    assert "+q1s1632_q1s416+" not in pair
    assert "+q1s64k_q1s1k" in pair
    assert "+q1s2320_q1s1008_q1s528_q1s240+" in four
    assert skipped == [
        "FLASH_ATTN_MLA, graph: ragged_specs of sizes that are not tuned skipped: 24q1"
    ]


def test_eager_shapes_have_no_guards(guards_of):
    assert guards_of("batch_specs: [8q1s1k]\n")[0] == ["8q1s1k"]
