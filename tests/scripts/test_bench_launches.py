from search_cases import recording, track

from bench_launches import SEEN_BEST, rows, table


def test_policies_are_judged_by_the_rounds_that_they_have_not_seen():
    found = rows(recording(track(10.0, 8.0, 12.0), track(10.0, 9.0, spec="8q1s4k")), 0, (), ["all"])
    names = [row.policy for row in found]
    assert names == ["all plans", "all plans with vLLM's own launch", SEEN_BEST]
    assert found[0].regrets == (0.0, 0.0)
    assert (found[0].compiled, found[0].all_kernels) == (3, 3)


def test_a_table_has_one_line_a_policy():
    found = rows(recording(track(10.0, 8.0)), 0, (2,), ["random"])
    first, _, *lines = table(found).splitlines()
    assert first.startswith("| policy | tables | regret, mean |")
    assert [line.split(" | ")[0] for line in lines] == ["| random, 2 plans", f"| {SEEN_BEST}"]
