import pytest

from engine_cells import DEFAULT, PLUGIN, TWIN, paired
from engine_report import report


def _result(*, plugin_ms=1.0, agrees=True):
    samples = {DEFAULT: [2.0] * 6, TWIN: [2.0] * 6, PLUGIN: [plugin_ms] * 6}
    cell = {"batch": 8, "context": 1024, **paired(samples)}
    logprobs = {"plugin": 0.01, "one_prefill": 0.01, "half_context": 1.0, "agrees": agrees}
    return {
        "arguments": {"backend": "TRITON_MLA"},
        "engines": {DEFAULT: {"vllm": "0.26.0", "gpu": "NVIDIA H200"}},
        "decode": [cell],
        "extend": [],
        "logprobs": [{"batch": 8, "context": 1024, "new_tokens": 1, **logprobs}],
        "memory": {"given_back_gib": 7.9},
        "plugin": ["TRITON_MLA after 9 steps"],
    }


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        ({}, 0, "1 at least 0.99x, 0 undecided, 0 slower; 0 of 1 logprobs differ"),
        ({"plugin_ms": 2.1}, 1, "1 slower (8 x 1k)"),
        ({"agrees": False}, 1, "1 of 1 logprobs differ"),
    ],
)
def test_report_says_what_is_slower_and_what_differs(capsys, case, status, said):
    assert report(_result(**case), floor=0.99) == status
    assert said in capsys.readouterr().out
