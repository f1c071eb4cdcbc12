from mla_tune.plan.knob import KNOBS
from mla_tune.plan.launch import LAUNCH_KNOBS, launch_of, without_launch
from mla_tune.plan.plan import UNTUNED, Plan


def test_a_plan_falls_into_its_launch_and_the_rest() -> None:
    plan = Plan(num_kv_splits=2, block_n=64, block_h=32, num_warps=8, num_stages=1)
    assert launch_of(plan) == Plan(block_n=64, block_h=32, num_warps=8, num_stages=1)
    assert without_launch(plan) == Plan(num_kv_splits=2)
    assert launch_of(plan).over(without_launch(plan)) == plan


def test_vllms_own_launch_is_the_empty_plan() -> None:
    assert launch_of(Plan(num_kv_splits=2)) == UNTUNED
    assert not launch_of(UNTUNED)


def test_its_knobs_stand_in_the_order_of_all_knobs_and_decide_among_ties_last() -> None:
    assert [knob for knob in KNOBS if knob in LAUNCH_KNOBS] == list(LAUNCH_KNOBS)
    others = [knob.tie_rank for name, knob in KNOBS.items() if name not in LAUNCH_KNOBS]
    assert max(others) < min(KNOBS[name].tie_rank for name in LAUNCH_KNOBS)
