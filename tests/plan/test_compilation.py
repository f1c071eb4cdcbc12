from mla_tune.plan.compilation import NOTHING_COMPILED, Compilation
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan


def test_two_of_them_add_up():
    failed = Plan(num_kv_splits=2)
    failure = PlanFailure("hung", plan=failed)
    total = NOTHING_COMPILED + Compilation(3, 1.5) + Compilation(1, 0.5, {failed: failure})
    assert (total.kernels, total.seconds) == (4, 2.0)
    assert total.failures == {failed: failure}
    assert NOTHING_COMPILED.kernels == 0
