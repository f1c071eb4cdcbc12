"""What vLLM itself captures for command lines, beside what we make of them; run as a program.

Takes lists of arguments as JSON and prints a line of JSON for each: the text of the shapes file,
the requests of the full decode graphs that vLLM's own graph manager plans, and what of its backend
could be picked. One process for all of them: an import of vLLM takes ten seconds.
"""

import json
import sys
from typing import Any

from mla_tune.serving.engine_config import no_choice, served_engine
from mla_tune.serving.engine_main import _configured, _parsed, _with_each
from mla_tune.serving.engine_shapes import shapes_text
from mla_tune.serving.on_paper import configure_on_paper


def captured_by_vllm(vllm_config: Any) -> list[int]:
    """Requests of each decode graph, as the model runner of the installed release plans them."""
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    manager = object.__new__(CudaGraphManager)  # the rest of it wants a GPU
    manager.vllm_config = vllm_config
    manager.compilation_config = vllm_config.compilation_config
    manager.cudagraph_mode = vllm_config.compilation_config.cudagraph_mode
    manager.max_num_reqs = vllm_config.scheduler_config.max_num_seqs
    manager.decode_query_len = vllm_config.uniform_decode_query_len
    manager.lora_capture_cases = [0]
    manager.varlen_decode = False
    manager.ubatch_runner = None
    manager._candidates, manager._capture_descs = {}, {}
    manager._init_candidates()
    full = [
        d for descs in manager._capture_descs.values() for d in descs if d.cg_mode.name == "FULL"
    ]
    assert all(d.uniform_token_count == manager.decode_query_len for d in full)
    return sorted({d.num_reqs for d in full})


def main() -> None:
    configure_on_paper()
    for number, arguments in enumerate(json.loads(sys.argv[1])):
        vllm_config = _configured(_parsed(arguments))
        text = shapes_text(served_engine(vllm_config), "vllm serve …")
        told = {
            "shapes": text,
            "captured": captured_by_vllm(vllm_config),
            "no_choice": no_choice(vllm_config),
        }
        if number == 0:
            others = _with_each(arguments, ["TRITON_MLA", "NO_SUCH_MLA"])
            told["others"] = [(other.backend, other.capture_sizes) for other in others]
            told["capture_sizes"] = served_engine(vllm_config).capture_sizes
        print(json.dumps(told))


if __name__ == "__main__":
    main()
