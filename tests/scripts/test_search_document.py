import pytest

from search_document import Findings, document
from search_policies import AS_A_RUN, HALF, sampled
from search_tunes import Result


def result(policy=AS_A_RUN, num_plans=9, regret=0.02, loss=-0.1, **more):
    given = {"slows_a_length": False, "is_plan": True, "screened_share": 0.5, "spent_share": 2.0}
    given |= {"moved": 0.003, "played_rounds": 6, **more}
    return Result("h100", policy, num_plans, regret, loss, **given)


@pytest.fixture
def written():
    results = [
        result(),
        result(regret=0.04, loss=0.01),
        result(num_plans=5, slows_a_length=True, played_rounds=12),
        result(regret=0.0, loss=0.0, is_plan=False),
        result(policy=HALF, regret=0.3, loss=0.3),
    ]
    return written_of(results)


def written_of(results):
    alike = [("a", True), ("a", False), ("b", False)]
    return document(Findings(results, alike, seeds=2))


def test_a_row_counts_what_is_slower(written):
    row = "| h100 | 4 | 2.00% | 4.0% | 25.0% | 1.0% | 25.0% | 75% | 0.50 | 2.0 |"
    assert row in written.splitlines()


def test_sizes_of_space_are_listed_in_order(written):
    rows = [line.split(" | ")[:2] for line in written.splitlines() if line[2:4] in {"5,", "9,"}]
    assert rows == [
        [f"| 5, {AS_A_RUN}", "1"],
        [f"| 9, {AS_A_RUN}", "3"],
        [f"| 9, {HALF}", "1"],
    ]


def test_it_says_that_no_sampler_can_act(written):
    assert "from 22 plans on. None is recorded." in " ".join(written.split())


def test_a_sampler_is_compared_in_large_spaces_alone():
    results = [result(), result(num_plans=33), result(policy=sampled("tpe"), num_plans=33)]
    before, samplers = written_of(results).split("## Samplers")
    assert sampled("tpe") not in before
    assert f"| {sampled('tpe')} | 1 | 2.00% |" in samplers
    assert f"| {AS_A_RUN} | 1 | 2.00% |" in samplers


def test_it_says_what_it_cannot_see(written):
    text = " ".join(written.split())
    assert "differs by 0.30% between them (median)" in text
    assert "A half has 6 to 12 rounds" in text
    assert "1 of 3 tunes published one, wrongly: of a." in text


def test_its_lines_are_filled(written):
    assert max(len(line) for line in written.splitlines() if not line.startswith("|")) <= 114
