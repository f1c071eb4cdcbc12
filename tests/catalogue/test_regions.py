from made_up_tables import FLASH_ATTN, FLASHMLA, default, table

from mla_tune.catalogue.contest import contests
from mla_tune.catalogue.regions import regions


def test_sizes_next_to_each_other_with_one_winner_are_a_region():
    ours = {"q1s1k": 10.0, "4q1s1k": 10.0, "160q1s1k": 12.0, "q1s12k": 10.0, "2q2k_8q1s1k": 1.0}
    theirs = {"q1s1k": 12.0, "4q1s1k": 15.0, "160q1s1k": 10.0, "q1s12k": 10.05, "2q2k_8q1s1k": 2.0}
    tables = (
        table(backend, *(default(shape, us) for shape, us in times.items()))
        for backend, times in ((FLASH_ATTN, ours), (FLASHMLA, theirs))
    )
    (contest,) = contests(tables)
    found = regions(contest.points)
    assert [(each.kv_lens, each.batches, each.fastest, each.tied) for each in found] == [
        ("1k", (1, 4), 0, ()),
        ("1k", (160, 160), 1, ()),
        ("12k", (1, 1), 0, (1,)),
    ]
    assert found[0].ahead == (1.2, 1.5)
