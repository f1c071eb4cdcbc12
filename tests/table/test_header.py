from dataclasses import replace

from fake_device import ENVIRONMENT
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def test_a_header_names_all_that_its_entries_are_true_for():
    assert HEADER.model_dump(exclude_none=True) == {
        "schema_version": 2,
        "backend": "TORCH_MLA",
        "device": {"name": "Fake Device", "sm_count": 2},
        "model": {
            "num_q_heads": 2,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
        "kv_cache_dtype": "auto",
        "quantization": "none",
        "engine": {"mode": "eager", "max_model_len": 4096},
        "software": {"torch": "2.13.0"},
    }


def test_headers_differ_in_the_first_field_that_does():
    newer = replace(ENVIRONMENT, software={"torch": "9"})
    other = Header.of(newer, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
    assert HEADER.first_difference(other) == ("software", {"torch": "2.13.0"}, {"torch": "9"})
    assert HEADER.first_difference(HEADER) is None


def header_of(**facts):
    environment = replace(ENVIRONMENT, **facts)
    return Header.of(environment, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def test_a_locked_clock_is_what_entries_are_true_for():
    locked = header_of(locked_sm_clock_mhz=1005)
    assert locked.device.locked_sm_clock_mhz == 1005
    assert HEADER.first_difference(locked)[0] == "device"
    assert locked.first_difference(header_of(locked_sm_clock_mhz=1005)) is None


def test_what_the_driver_does_not_say_is_told_and_keeps_no_tables_apart():
    silent = header_of(unwatched="clocks (NVML: Not Found)")
    assert silent.model_dump()["device"]["unwatched"] == "clocks (NVML: Not Found)"
    assert HEADER.first_difference(silent) is None


DIGESTS = {"triton_decode_attention.py": "1", "triton_mla.py": "2", "mla_attention.py": "3"}


def triton_header(mode="graph", **facts):
    environment = replace(ENVIRONMENT, software={"vllm": "0.33.0"}, **facts)
    return Header.of(environment, "TRITON_MLA", MlaDimensions(2), "auto", mode, 4096)


def test_a_header_holds_the_digests_that_decide_in_its_mode():
    everything = DIGESTS | {"flashmla.py": "of another backend"}
    eager = triton_header("eager", digests=everything)
    assert (eager.software_digests, eager.schema_version) == (DIGESTS, 4)
    graph = triton_header(digests=everything)
    assert graph.software_digests.keys() == {"triton_decode_attention.py", "triton_mla.py"}
    assert triton_header().software_digests is None
    assert header_of(digests=everything).software_digests is None
    assert Header.model_validate(graph.model_dump(exclude_none=True)) == graph


def test_headers_of_other_digests_differ_and_without_any_versions_tell():
    held = triton_header(digests=DIGESTS)
    other = triton_header(digests=DIGESTS | {"triton_mla.py": "other"})
    assert held.first_difference(other) == ("triton_mla.py", "2", "other")
    assert held.first_difference(triton_header()) is None
    assert triton_header().first_difference(held) is None
