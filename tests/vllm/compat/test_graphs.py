import pytest

from mla_tune.vllm import compat
from mla_tune.vllm.compat import graphs


@pytest.mark.parametrize(
    ("capability", "release", "tokens"),
    [
        ("10.0", "0.32.0", 1024),
        ("10.0", "0.26.0", 512),
        ("9.0", "0.33.0", 512),
        ("10.0", "built here", 512),
    ],
)
def test_0_32_captures_more_on_compute_capability_10(
    capability: str, release: str, tokens: int
) -> None:
    assert graphs.default_capture_size(capability, release) == tokens


def test_the_limit_is_that_of_the_installed_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    assert graphs.graph_capture_limit(10) == 1024
    monkeypatch.setattr(compat, "release", lambda: (0, 26, 0))
    assert graphs.graph_capture_limit(10) == 512
