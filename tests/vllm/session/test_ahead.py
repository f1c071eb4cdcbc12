import pytest

from mla_tune.plan.failure import FailureKind
from mla_tune.plan.plan import Plan
from mla_tune.vllm.session import ahead
from mla_tune.vllm.session.ahead import AheadCompiler
from mla_tune.vllm.triton_compile import KernelCall
from mla_tune.vllm.triton_compiler import Outcome

SPLITS = {count: Plan(num_kv_splits=count) for count in (1, 2, 4, 8)}
CALLS = {count: KernelCall("kernels", "stage1", (count,), ()) for count in (1, 2, 4, 8)}
SHARED = KernelCall("kernels", "stage2", (), ())
BECAME = {
    CALLS[1]: (Outcome.COMPILED, ""),
    CALLS[2]: (Outcome.HUNG, "the compiler took more than 3 s"),
    CALLS[4]: (Outcome.ENDED, "the compiler ended (SIGSEGV)"),
    CALLS[8]: (Outcome.ENDED, "the compiler ended (SIGKILL)"),
    SHARED: (Outcome.FOUND, ""),
}


class Process:
    """In the place of the compiler's process."""

    started = 0

    def __init__(self, module):
        assert "triton_decode_attention" in module
        Process.started += 1
        self.asked = []

    def compile(self, calls, target, limit_s, alive):
        assert (target, limit_s) == ("sm_90", 3.0)
        alive()
        self.asked += calls
        return {call: BECAME[call] for call in calls}

    def close(self):
        self.asked = None


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(ahead, "CompilerProcess", Process)
    monkeypatch.setattr(ahead, "active_target", lambda: "sm_90")
    return AheadCompiler()


def compiled(compiler, *counts):
    told = []
    launched = {SPLITS[count]: (CALLS[count], SHARED) for count in counts}
    return compiler.compile(launched, 3.0, told.append), told


def test_each_kernel_is_asked_for_once(compiler):
    done, told = compiled(compiler, 1)
    assert (done.kernels, dict(done.failures)) == (1, {})
    assert told == [SPLITS[1]]
    again, told = compiled(compiler, 1)
    assert (again.kernels, told) == (0, [])
    assert compiler._process.asked == [CALLS[1], SHARED]


def test_what_would_take_the_worker_along_is_the_plan_s_failure(compiler):
    for _ in range(2):  # the second time from what is known
        done, _ = compiled(compiler, 1, 2, 4, 8)
        kinds = {plan: failure.kind for plan, failure in done.failures.items()}
        assert kinds == {SPLITS[2]: FailureKind.TIMED_OUT, SPLITS[4]: FailureKind.DIED}
        assert all(failure.plan is plan for plan, failure in done.failures.items())
        assert "took more than 3 s" in done.failures[SPLITS[2]].what


def test_nothing_to_compile_starts_no_process(compiler):
    before = Process.started
    assert compiler.compile({SPLITS[1]: ()}, 3.0, lambda _plan: None).kernels == 0
    compiler.close()
    assert Process.started == before
