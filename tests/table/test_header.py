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
