"""Which tables a machine uses."""

import pytest
from made_up_tables import TRITON, default, table, tuned

from mla_tune.catalogue import machine
from mla_tune.catalogue.machine import Machine

PACKAGES = {"triton": "3.6.0"}
H200 = Machine(("NVIDIA H200",), "0.33.0", PACKAGES)


def why_not(found, here=H200):
    return here.why_not(found.file)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.setattr(machine, "_digests", lambda _backend: {})


def test_a_table_of_this_gpu_and_release_is_used():
    assert why_not(table(TRITON, tuned("q1s1k", 2.0, 1.0))) == []
    assert why_not(table(TRITON), Machine(("nvidia  h200",), "0.33.4", PACKAGES)) == []


def test_what_differs_is_named():
    found = table(TRITON, tuned("q1s1k", 2.0, 1.0))
    assert why_not(found, Machine((), "0.33.0", PACKAGES)) == ["is for NVIDIA H200, here is no GPU"]
    assert why_not(found, Machine(H200.gpus, None)) == ["vLLM is not installed here"]
    older = Machine(H200.gpus, "0.32.0", PACKAGES | {"triton": "3.5.0"})
    assert why_not(found, older) == [
        "is for vLLM 0.33, here is 0.32",
        "is for triton 3.6, here is 3.5",
    ]


def test_what_nobody_has_looked_at_is_not_compared():
    assert why_not(table(TRITON, tuned("q1s1k", 2.0, 1.0)), Machine(H200.gpus, "0.33.0")) == []


def test_digests_decide_where_both_have_them(monkeypatch):
    names = ("triton_decode_attention.py", "triton_mla.py")
    digests = dict.fromkeys(names, "a")
    monkeypatch.setattr(machine, "_digests", lambda _backend: digests)
    found = table(TRITON, mode="graph", software_digests=digests)
    assert why_not(found, Machine(H200.gpus, "0.99.0", PACKAGES)) == []
    other = table(TRITON, mode="graph", software_digests=digests | {"triton_mla.py": "b"})
    assert why_not(other) == ["triton_mla.py differs from what was measured"]


def test_an_engine_has_no_use_for_a_backend_that_is_not_vllms():
    assert why_not(table("TORCH_MLA", default("q1s1k", 1.0))) == [
        "TORCH_MLA is none of vLLM's backends"
    ]


def test_another_machine_is_what_is_told_of_it(monkeypatch):
    monkeypatch.setattr(machine, "gpu_names", lambda _nvml: ("NVIDIA H200",))
    monkeypatch.setattr(machine, "installed_versions", lambda *names: dict.fromkeys(names, "1.0"))
    assert Machine.here(vllm="0.33.0") == Machine(("NVIDIA H200",), "0.33.0")
    here = Machine.here(gpu="NVIDIA L4")
    assert (here.gpus, here.vllm) == (("NVIDIA L4",), "1.0")
    assert here.packages is not None
