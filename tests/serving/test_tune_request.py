from pathlib import Path

import pytest

from mla_tune.serving.tune_request import TuneAnswer, TuneRequest


def test_request_and_answer_survive_the_way() -> None:
    shapes = {
        "model": {"num_q_heads": 16},
        "graph": {"capture_sizes": [8, 1], "kv_lens": {1024: 2}},
    }
    request = TuneRequest(shapes, "TRITON_MLA", Path("/a"), Path("/b"), "auto", "0,1", 1)
    assert TuneRequest.from_json(request.as_json()).backend == "TRITON_MLA"
    answer = TuneAnswer(("q1s1k",), "it crashed")
    assert TuneAnswer.from_json(answer.as_json()) == answer


@pytest.mark.parametrize("text", ["", "{}"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        TuneRequest.from_json(text)
