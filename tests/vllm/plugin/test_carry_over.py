from dataclasses import replace
from types import SimpleNamespace

import pytest

from mla_tune.vllm import compat
from mla_tune.vllm.plugin.carry_over import splits_carry_over
from tabled_engine import H200, header


@pytest.mark.parametrize(
    ("backend", "splits", "here", "carries"),
    [
        ("TRITON_MLA", 8, 131072, True),
        ("TRITON_MLA", 8, 262144, True),
        ("TRITON_MLA", 8, 16384, False),
        ("CUTLASS_MLA", 8, 131072, True),
        ("CUTLASS_MLA", 8, 262144, False),
        ("FLASH_ATTN_MLA", 8, 16384, True),
        ("FLASH_ATTN_MLA", 0, 131072, False),
        # Nobody has said what its graphs freeze.
        ("TOKENSPEED_MLA", 8, 131072, False),
    ],
)
def test_each_backend_says_when_its_splits_carry_over(
    monkeypatch: pytest.MonkeyPatch, backend: str, splits: int, here: int, carries: bool
) -> None:
    # As vLLM 0.20.2 to 0.33.0 have it, without importing them.
    monkeypatch.setattr(compat, "module", lambda _: SimpleNamespace())
    monkeypatch.setattr(compat, "release", lambda: (0, 20, 2))
    facts = replace(H200, backend=backend, max_model_len=here)
    assert splits_carry_over(splits, header(backend=backend), facts) is carries
