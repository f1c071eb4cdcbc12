import dataclasses
import shlex
from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.registry import BACKENDS
from mla_tune.table import Table
from mla_tune.vllm.backends.triton_mla import BACKEND
from mla_tune.vllm.flags import _translated, vllm_args
from tabled_engine import WriteTable, cpu_header, entry


def test_one_cap_for_all_entries_is_a_flag(write_table: WriteTable) -> None:
    cap = Plan(num_kv_splits=64)
    path = write_table(
        cpu_header("FLASH_ATTN_MLA"),
        entry("q1s32k", cap),
        entry("8q1s32k", UNTUNED, ties=[cap]),
    )
    (args,) = vllm_args([path], "0.26.0")
    assert args.flags == (
        "--attention-backend FLASH_ATTN_MLA",
        "--attention-config.flash_attn_max_num_splits_for_cuda_graph=64",
    )


def test_a_cap_that_one_entry_may_lose_by_is_not_given(write_table: WriteTable) -> None:
    path = write_table(
        cpu_header("FLASH_ATTN_MLA"),
        entry("q1s32k", Plan(num_kv_splits=64), weight=9.0),
        entry("8q1s32k", Plan(num_kv_splits=8)),
    )
    (args,) = vllm_args([path])
    assert args.flags == ("--attention-backend FLASH_ATTN_MLA",)
    assert "not proven for 8q1s32k" in args.left_over[0]
    assert "#   num_kv_splits by batch" in str(args)


def test_cutlass_splits_are_a_variable(write_table: WriteTable) -> None:
    path = write_table(cpu_header("CUTLASS_MLA"), entry("q1s32k", Plan(num_kv_splits=8)))
    (args,) = vllm_args([path])
    assert args.environment == ("FORCE_NUM_KV_SPLITS=8",)


def test_what_no_flag_can_say_is_named(write_table: WriteTable) -> None:
    path = write_table(
        cpu_header(mode="eager"),
        entry("8q1s4k", Plan(num_kv_splits=8)),
        entry("8q256s4k", Plan(reorder_batch_threshold=256)),
    )
    (args,) = vllm_args([path])
    assert [line.split(":")[0] for line in args.left_over] == [
        "num_kv_splits of TRITON_MLA",
        "reorder_batch_threshold",
    ]


@pytest.mark.parametrize(
    ("version", "name", "flag"),
    [
        ("0.33.0", "trtllm", "mla_prefill_backend=TRTLLM_RAGGED"),
        ("0.26.0", "flashinfer", "mla_prefill_backend=FLASHINFER"),
        ("0.20.2", "trtllm", "use_trtllm_ragged_deepseek_prefill=true"),
        ("0.20.2", "flashinfer", "disable_flashinfer_prefill=false"),
        ("0.20.2", "fa2", "flash_attn_version=2"),
        ("0.26.0", "fa4", "flash_attn_version=4"),
    ],
)
def test_prefill_backends_are_spelled_as_the_release_does(
    write_table: WriteTable, version: str, name: str, flag: str
) -> None:
    path = write_table(
        cpu_header("FLASHINFER_MLA", mode="eager"), entry("q2k", Plan(prefill_backend=name))
    )
    (args,) = vllm_args([path], version)
    assert args.flags[1] == f"--attention-config.{flag}"


@pytest.mark.parametrize("version", ["0.19.1", "newest", "1"])
def test_an_unknown_release_is_refused(write_table: WriteTable, version: str) -> None:
    path = write_table(cpu_header(), entry("8q1s4k", UNTUNED))
    with pytest.raises(InputError, match=version):
        vllm_args([path], version)


@pytest.mark.parametrize("version", ["v0.26.0", "0.26", "0.26.0rc2", "0.26.1.dev5+gabc"])
def test_a_release_may_be_written_as_vllm_tags_it(write_table: WriteTable, version: str) -> None:
    path = write_table(cpu_header(), entry("8q1s4k", UNTUNED))
    (args,) = vllm_args([path], version)
    assert args.flags == ("--attention-backend TRITON_MLA",)


def test_a_table_of_another_build_is_said_to_be_tuned_again(write_table: WriteTable) -> None:
    path = write_table(cpu_header(software={"vllm": "0.23.0"}), entry("8q1s4k", UNTUNED))
    (args,) = vllm_args([path], "0.23.1")
    assert args.left_over == ()
    (args,) = vllm_args([path], "0.23.1rc1.dev727")
    assert args.left_over == ("measured on vLLM 0.23.0: tune again for 0.23.1rc1.dev727",)


def test_what_is_printed_for_pasting_is_nothing_but_flags_and_comments(
    write_table: WriteTable,
) -> None:
    path = write_table(cpu_header(), entry("8q1s4k", Plan(num_kv_splits=8)))
    hostile = path.with_name("a\ntouch x #.yaml")
    hostile.write_text(
        path.read_text().replace("kv_cache_dtype: auto", 'kv_cache_dtype: "auto\\ntouch y"')
    )
    (args,) = vllm_args([hostile])
    assert [line for line in str(args).splitlines() if not line.startswith("#")] == [
        "--attention-backend TRITON_MLA"
    ]


def test_values_are_quoted_for_the_shell() -> None:
    header = cpu_header().model_copy(update={"backend": "TRITON_MLA; touch x #"})
    with BACKENDS.registered(dataclasses.replace(BACKEND, name="TRITON_MLA; touch x #")):
        args = _translated(Path("t.yaml"), Table(header, ()), "0.26.0")
    command = [line for line in str(args).splitlines() if not line.startswith("#")]
    assert shlex.split(" ".join(command)) == ["--attention-backend", "TRITON_MLA; touch x #"]


def test_the_engine_s_own_settings_are_part_of_what_a_table_asks_for(
    write_table: WriteTable,
) -> None:
    engine = {"mode": "eager", "max_model_len": 4096, "block_size": 64}
    header = cpu_header(engine=engine, quantization="fp8_per_block")
    (args,) = vllm_args([write_table(header, entry("8q1s4k", UNTUNED))])
    assert args.flags == ("--attention-backend TRITON_MLA", "--block-size 64")
    assert "quantized as fp8_per_block" in args.left_over[0]
