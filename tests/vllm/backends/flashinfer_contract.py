"""Run in a process of its own: which kernel FlashInfer's Python takes for vLLM's calls, as JSON.

FlashInfer asks for a GPU when it is imported, so one is pretended; and it launches nothing, since
what would launch a kernel is replaced.
"""

import json
import os
from types import SimpleNamespace

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "VLLM_LOGGING_LEVEL": "ERROR", "TRITON_INTERPRET": "1"}

import torch

SMS, HEADS, RANK, ROPE, BLOCK = 148, 128, 512, 64, 64


def pretend() -> None:
    b200 = SimpleNamespace(
        major=10, minor=0, multi_processor_count=SMS, name="NVIDIA B200", total_memory=2**37
    )
    torch.cuda.get_device_properties = lambda *_: b200
    torch.cuda.get_device_capability = lambda *_: (10, 0)
    torch.cuda.current_device = lambda: 0


pretend()

import flashinfer.cute_dsl.attention  # noqa: E402
import flashinfer.mla._core as core  # noqa: E402
import vllm.v1.attention.backends.mla.flashinfer_mla as module  # noqa: E402

from mla_tune.vllm.backends.flashinfer_mla import (  # noqa: E402
    AUTO,
    CUTE_DSL,
    TRTLLM_GEN,
    TunedDecode,
)


def runner(name, ran):
    """In the place of what launches one of the kernels."""

    class Runner:
        def __init__(self, **_):
            pass

        def __call__(self, **_):
            ran.append(name)

    return Runner


def replace_launches(ran) -> None:
    def ragged(*, out, **_):
        ran.append(CUTE_DSL)
        return out

    core.TrtllmGenMlaDecodeRunner = runner(TRTLLM_GEN, ran)
    core.CuteDslMlaDecodeRunner = runner(CUTE_DSL, ran)
    launch = SimpleNamespace(trtllm_paged_attention_decode=lambda *_: ran.append(TRTLLM_GEN))
    core.get_trtllm_gen_fmha_module = lambda: launch
    flashinfer.cute_dsl.attention.cute_dsl_mla_decode = ragged
    # FlashInfer's own rule without its autotuner: the first of those that take the call.
    tuner = SimpleNamespace(choose_one=lambda _name, runners, *_: (runners[0], -1))
    core.AutoTuner = SimpleNamespace(get=lambda: tuner)
    core._build_mla_decode_tuning_config = lambda **_: None
    # What is asked of CuTe DSL's compiler, which is not there.
    core._cute_dsl_incompatibility_reason = lambda *_, **__: None
    core.get_compute_capability = lambda _: (10, 0)
    core.device_support_pdl = lambda _: False
    core.get_device_sm_count = module.get_device_sm_count = lambda _: SMS
    module._get_workspace_buffer = lambda _: torch.zeros(2**20, dtype=torch.int8)


def impl():
    made = object.__new__(module.FlashInferMLAImpl)
    made.__dict__ |= {
        "bmm1_scale": 1.0,
        "bmm2_scale": 1.0,
        "need_to_return_lse_for_decode": False,
        "dcp_world_size": 1,
        "qk_nope_head_dim": 128,
        "kv_lora_rank": RANK,
        "qk_rope_head_dim": ROPE,
        "_mla_counter_max_batch": 64,
        "_mla_counter_bytes": None,
    }
    return made


def metadata(requests, query_len):
    decode = SimpleNamespace(
        block_table=torch.zeros(requests, 4, dtype=torch.int32),
        seq_lens=torch.full((requests,), 200, dtype=torch.int32),
        query_start_loc=torch.arange(requests + 1, dtype=torch.int32) * query_len,
        max_query_len=query_len,
    )
    tokens = requests * query_len
    return SimpleNamespace(
        decode=decode, num_decodes=requests, num_decode_tokens=tokens, causal=True, max_seq_len=256
    )


def main() -> None:
    ran: list[str] = []
    replace_launches(ran)
    decode = TunedDecode.of_vllm()
    report = {}
    cache = torch.zeros(8, BLOCK, RANK + ROPE, dtype=torch.bfloat16)
    for prefix, query_len in (("", 1), ("ragged ", 3)):
        for kernel in (AUTO, TRTLLM_GEN, CUTE_DSL):
            query = torch.zeros(2 * query_len, HEADS, RANK + ROPE, dtype=torch.bfloat16)
            with decode.choosing(kernel), decode.observed() as seen:
                impl().forward_mqa(query, cache, metadata(2, query_len), None)
            report[prefix + kernel] = [*seen, *ran]
            ran.clear()
    print("REPORT" + json.dumps(report))


main()
