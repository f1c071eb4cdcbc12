from fake_device import DEFAULT, workload
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.workload_cost import cost_of


def test_more_tokens_and_more_cases_cost_more():
    assert cost_of(workload("8q1s1k"), None) < cost_of(workload("64q1s8k"), None)
    assert cost_of(workload("8q1s1k"), None) < cost_of(Workload.parse("8q1s{512,1k}"), None)


def test_what_the_last_run_measured_counts_where_it_is_there():
    shape = workload("8q1s1k")
    quick, slow = (
        Entry(shape=str(shape), plan=DEFAULT, default_plan=DEFAULT, latency_us=us, default_us=us)
        for us in (2.0, 2000.0)
    )
    assert cost_of(shape, quick) < cost_of(shape, None) < cost_of(shape, slow)
