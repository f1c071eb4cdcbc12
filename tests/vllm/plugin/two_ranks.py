"""The two ranks of an engine, on the CPU: python two_ranks.py FOLDER

Each is a process of its own, forked from this one, which has imported vLLM. Both go through the
same scenes, in each of which the plugin starts anew, and write down what came of them.
"""

import json
import logging
import multiprocessing
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

import numpy
import pytest
import torch.distributed as dist
from plugin_state import fresh_plugin
from vllm_on_cpu import Engine, leave_out_flash_attention, start

GRAPHS = {"max_cudagraph_capture_size": 2}

# Requests as the scheduler has them: new tokens, tokens in the cache, tokens of the prompt.
SCHEDULED = [(40, 64, 400), (300, 0, 300), (16, 64, 400), (1, 500, 400), (16, 0, 16)]


def main() -> int:
    folder = Path(sys.argv[1])
    ranks = [
        multiprocessing.get_context("fork").Process(target=_be, args=(rank, folder))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return max(abs(rank.exitcode or 0) for rank in ranks)


def _be(rank: int, folder: Path) -> None:
    start()  # vLLM's groups of a single rank, for the layer
    store = _store(rank, folder)
    told = {
        scene.name: _play(scene, rank, store) for scene in sorted((folder / "scenes").iterdir())
    }
    (folder / f"told by {rank}.json").write_text(json.dumps(told), encoding="utf-8")


def _store(rank: int, folder: Path) -> Any:
    port = folder / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
        (folder / "port.new").write_text(str(store.port), encoding="utf-8")
        (folder / "port.new").rename(port)
        return store
    while not port.exists():
        time.sleep(0.05)
    return dist.TCPStore("127.0.0.1", int(port.read_text(encoding="utf-8")), 2, is_master=False)


def _play(scene: Path, rank: int, store: Any) -> dict[str, Any]:
    """Start the engine of ``scene``, whose folder has a folder of tables for each rank."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    from mla_tune.vllm import plugin as runtime
    from mla_tune.vllm.plugin import agreement, deployment

    dist.destroy_process_group()
    dist.init_process_group(
        "gloo", store=dist.PrefixStore(scene.name, store), rank=rank, world_size=2
    )
    tables = scene / str(rank)
    os.environ["MLA_TUNE_TABLES"] = str(tables) if tables.is_dir() else ""
    with fresh_plugin(), pytest.MonkeyPatch.context() as patch:
        leave_out_flash_attention(patch)
        if (scene / f"{rank} fails").exists():
            patch.setattr(deployment, "choose", _fail)
        if (scene / "impatient").exists():
            patch.setattr(agreement, "SECONDS_TO_WAIT", 2.0)
        errors = _errors(patch)
        runtime.register()
        assert AttentionBackendEnum["FLASH_ATTN_MLA"].is_overridden() == tables.is_dir()
        engine = start("FLASH_ATTN_MLA", captures=(2,), tensor_parallel=2, **GRAPHS)
        metadata = engine.builder.build(0, engine.batch("q16s256_2q40s256"))
        return {
            "decodes": metadata.num_decodes,
            "order": _order(engine),
            "cap": _frozen_cap(engine),
            "errors": errors,
        }


def _fail(*_: object) -> None:
    raise RuntimeError("no such luck")


def _errors(patch: pytest.MonkeyPatch) -> list[str]:
    errors: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    logger = logging.getLogger("vllm.mla_tune")
    patch.setattr(logger, "handlers", [Keeper(logging.ERROR)])
    patch.setattr(logger, "disabled", False)
    return errors


def _frozen_cap(engine: Engine) -> int:
    batch = engine.batch("2q1s128", longest=4096)
    return int(engine.builder.build_for_cudagraph_capture(batch).decode.max_num_splits)


def _order(engine: Engine) -> list[str]:
    """The rows of a step, as model runner V1 orders them by the builder's attribute."""
    from vllm.v1.attention.backends.utils import reorder_batch_to_split_decodes_and_prefills

    names = [f"{new}+{cached}" for new, cached, _ in SCHEDULED]
    batch = SimpleNamespace(
        req_ids=list(names),
        num_computed_tokens_cpu=numpy.array([cached for _, cached, _ in SCHEDULED]),
        num_prompt_tokens=numpy.array([prompt for _, _, prompt in SCHEDULED]),
    )

    def swap_states(one: int, other: int) -> None:
        for rows in (batch.req_ids, batch.num_computed_tokens_cpu, batch.num_prompt_tokens):
            rows[one], rows[other] = rows[other], rows[one]

    batch.swap_states = swap_states
    scheduled = {name: new for name, (new, _, _) in zip(names, SCHEDULED, strict=True)}
    reorder_batch_to_split_decodes_and_prefills(
        batch,
        SimpleNamespace(num_scheduled_tokens=scheduled),
        decode_threshold=engine.builder.reorder_batch_threshold,
    )
    return batch.req_ids


if __name__ == "__main__":
    sys.exit(main())
