import re

from hypothesis import example, given
from hypothesis import strategies as st

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.shapes.buckets import bucket_start
from mla_tune.shapes.lengths import Lengths
from mla_tune.shapes.ragged import longest_of, with_longest
from mla_tune.table import Entry, Speedup, Table
from mla_tune.vllm.plugin.lookups import ENDS_EARLY, UNIFORM_ALONE, Lookups
from modelled_table import modelled
from tabled_engine import UNGUARDED, entry, header


def graph(*entries: Entry) -> Lookups:
    return Lookups(Table(header(), entries), None)


def eager(*entries: Entry) -> Lookups:
    bare = tuple(entry.model_copy(update=UNGUARDED) for entry in entries)
    table = Table(header(engine={"mode": "eager", "max_model_len": 131072}), bare)
    return Lookups(None, table)


def splits(count: int) -> Plan:
    return Plan(num_kv_splits=count)


@given(st.integers(1, 1 << 20))
def test_a_bucket_is_an_eighth_of_an_octave(kv_len: int) -> None:
    start = bucket_start(kv_len)
    assert start <= kv_len < start * 1.125 + 1
    assert bucket_start(start) == start


def test_a_graph_is_answered_by_batch_and_query_length_alone() -> None:
    lookups = graph(
        entry("32q1s{512,1k,4k}", splits(8), holds_to=8192), entry("64q1s1k", splits(4))
    )
    choice = lookups.captured(32, 1)
    assert (choice.outcome, choice.plan.get("num_kv_splits"), choice.longest_kv) == ("hit", 8, 8192)
    assert lookups.captured(64, 1).plan == splits(4)
    assert set(lookups.tabled) == {(32, 1), (64, 1)}


@given(
    st.dictionaries(st.tuples(st.integers(1, 20), st.integers(1, 3)), st.integers(1, 6)),
    st.integers(1, 20),
    st.integers(1, 3),
)
def test_a_captured_size_gets_its_own_entry_or_stays_vllms(
    tabled: dict[tuple[int, int], int], batch: int, query_len: int
) -> None:
    lookups = graph(
        *(
            entry(str(BatchShape.of([RequestGroup(q, 1024, n)])), splits(1 << power))
            for (n, q), power in tabled.items()
        )
    )
    choice = lookups.captured(batch, query_len)
    power = tabled.get((batch, query_len))
    expected = ("miss", UNTUNED) if power is None else ("hit", splits(1 << power))
    assert (choice.outcome, choice.plan) == expected


def test_of_two_entries_for_one_batch_the_one_over_more_lengths_answers() -> None:
    lookups = graph(entry("32q1s1k", splits(2)), entry("32q1s{1k,4k}", splits(16)))
    assert lookups.captured(32, 1).plan.get("num_kv_splits") == 16


def test_of_two_entries_over_as_many_lengths_the_first_answers() -> None:
    lookups = graph(entry("32q1s4k", splits(2)), entry("32q1s1k", splits(16)))
    assert lookups.captured(32, 1).plan == splits(2)


def test_a_plan_that_is_not_proven_here_is_a_miss() -> None:
    table = Table(header(), (entry("32q1s1k", splits(8)), entry("64q1s1k", UNTUNED)))
    lookups = Lookups(table, None, graph_usable=lambda _: False)
    assert lookups.captured(32, 1).outcome == "miss"
    # The default needs no proof.
    assert lookups.captured(64, 1).outcome == "hit"


def test_an_entry_that_ends_before_the_engine_is_a_miss() -> None:
    table = Table(
        header(),
        (
            entry("32q1s1k", splits(8), holds_to=16384),
            entry("64q1s1k", splits(4), holds_to=16384),
            entry("96q1s{1k,16k}", splits(2), holds_to=None),
            entry("128q1s1k", splits(2), holds_to=None),
            entry("16q1s1k", UNTUNED, holds_to=16384),
        ),
    )
    lookups = Lookups(table, None, reach=lambda requests: 16384 * 64 // requests)
    assert lookups.captured(32, 1).reason == ENDS_EARLY
    found = lookups.captured(64, 1)
    assert (found.outcome, found.longest_kv) == ("hit", 16384)
    # An older entry holds as far as its listed lengths, and the default needs to hold nowhere.
    assert lookups.captured(96, 1).outcome == lookups.captured(16, 1).outcome == "hit"
    assert lookups.captured(128, 1).reason == ENDS_EARLY
    assert Lookups(table, None).captured(32, 1).outcome == "hit"
    asked = Lookups(table, None, reach=lambda _: 131072, unguarded=True)
    assert asked.captured(32, 1).outcome == "hit"


def test_an_entry_guarded_by_what_was_served_is_used_wherever_an_engine_ends() -> None:
    served = {"to": 16384, "beyond": 0.004}
    table = Table(
        header(),
        (
            entry("32q1s1k", splits(8), holds_to=16384, served=served),
            entry("64q1s{1k,32k}", splits(4), holds_to=None, served=served),
            entry("96q1s1k", splits(2), holds_to=8192, served=served),
        ),
    )
    lookups = Lookups(table, None, reach=lambda _: 131072)
    found = lookups.captured(32, 1)
    assert (found.outcome, found.longest_kv) == ("hit", 16384)
    assert lookups.captured(64, 1).outcome == "hit"
    # The memory that it was measured in ended before the record did.
    assert lookups.captured(96, 1).reason == ENDS_EARLY
    small = Lookups(table, None, reach=lambda _: 8192)
    assert small.captured(96, 1).outcome == "hit"


def test_an_entry_of_uniform_batches_alone_is_used_for_one_request_or_where_asked_for() -> None:
    entries = (
        entry("q1s1k", splits(64), holds_ragged=False),
        entry("32q1s1k", splits(8), holds_ragged=False),
        entry("64q1s1k", UNTUNED, holds_ragged=False),
    )
    lookups = graph(*entries)
    assert lookups.captured(1, 1).outcome == lookups.captured(64, 1).outcome == "hit"
    assert lookups.captured(32, 1).reason == UNIFORM_ALONE
    asked = Lookups(Table(header(), entries), None, unguarded=True)
    assert asked.captured(32, 1).plan == splits(8)


def test_an_eager_step_is_answered_by_its_lengths() -> None:
    lookups = eager(entry("32q1s1k", splits(8)), entry("32q1s4k", splits(16)))
    assert lookups.steps.uniform(32, 1, 1024).plan.get("num_kv_splits") == 8
    assert lookups.steps.uniform(32, 1, 1151).plan.get("num_kv_splits") == 8
    assert lookups.steps.uniform(32, 1, 4100).plan.get("num_kv_splits") == 16
    assert lookups.steps.uniform(32, 1, 4000).outcome == "miss"
    assert lookups.steps.uniform(32, 1, 2048).outcome == "miss"
    assert lookups.steps.uniform(128, 1, 1024).outcome == "miss"


@given(st.integers(1, 1 << 17), st.integers(1, 40), st.integers(1, 3))
def test_no_eager_answer_comes_from_another_batch_or_bucket(
    kv_len: int, batch: int, query_len: int
) -> None:
    lookups = eager(entry("32q1s1k", splits(8)))
    is_own = (batch, query_len) == (32, 1) and 1024 <= kv_len < 1152
    assert (lookups.steps.uniform(batch, query_len, kv_len).outcome == "hit") == is_own


def test_a_kind_of_step_is_looked_up_once() -> None:
    lookups = eager(entry("32q1s1k", splits(8)))
    assert lookups.steps.uniform(32, 1, 1024) is lookups.steps.uniform(32, 1, 1151)


def test_without_an_eager_table_every_eager_step_is_a_miss() -> None:
    assert graph(entry("32q1s1k", splits(8))).steps.uniform(32, 1, 1024).outcome == "miss"


def test_the_decode_path_of_one_query_length_says_nothing_of_another() -> None:
    lookups = eager(entry("8q256s4k", Plan(reorder_batch_threshold=256)))
    assert lookups.steps.uniform(8, 256, 4200).plan == Plan(reorder_batch_threshold=256)
    assert lookups.steps.uniform(8, 300, 4096).outcome == "miss"


def test_an_entry_answers_for_the_whole_bucket_that_it_was_measured_in() -> None:
    lookups = Lookups(None, modelled())
    assert lookups.steps.uniform(32, 1, 4600).plan == splits(2)
    assert lookups.steps.uniform(64, 1, 4096) is lookups.steps.uniform(64, 1, 4600)
    assert lookups.steps.uniform(64, 1, 4600).outcome == "hit"


def test_outside_of_entries_a_step_gets_what_the_model_has_proven() -> None:
    lookups = Lookups(None, modelled())
    choice = lookups.steps.uniform(1, 1, 5000)
    assert (choice.outcome, choice.plan) == ("hit", splits(32))
    assert lookups.steps.uniform(1, 1, 5100) is choice
    unproven = Lookups(None, modelled(error=5.0)).steps.uniform(1, 1, 5000)
    assert (unproven.outcome, unproven.plan) == ("miss", Plan())
    assert "not proven" in unproven.reason


def test_a_bucket_that_reaches_out_of_what_was_measured_is_a_miss() -> None:
    lookups = Lookups(None, modelled())
    assert lookups.steps.uniform(1, 1, 15000).outcome == "hit"
    assert lookups.steps.uniform(1, 1, 16384).outcome == "miss"


def test_the_model_asks_for_no_more_than_what_is_wanted_of_the_workspace() -> None:
    lookups = Lookups(None, modelled())
    room = max(rows * count for rows, count in lookups.splits_wanted())
    foreseen = []
    for batch in range(1, 257):
        for kv_len in range(1024, 16384, 500):
            choice = lookups.steps.uniform(batch, 1, kv_len)
            foreseen.append(not choice.reason.endswith("not foreseen for this batch"))
            assert batch * (choice.plan.number("num_kv_splits") or 1) <= room
    assert sum(foreseen) > 0.99 * len(foreseen)


def test_a_skewed_batch_is_answered_by_the_tables_model() -> None:
    lookups = Lookups(None, modelled())
    choice = lookups.steps.ragged(8, 1, 2048, 8192)
    assert choice.outcome == "hit"
    assert choice.plan.number("num_kv_splits") is not None
    assert lookups.steps.ragged(8, 1, 2049, 8193) is choice
    miss = lookups.steps.ragged(8, 1, 2048, 65536)
    assert (miss.outcome, "outside of what was measured" in miss.reason) == ("skewed", True)


def test_without_a_model_or_for_longer_queries_a_skewed_batch_is_vllms() -> None:
    assert eager(entry("32q1s4k", splits(8))).steps.ragged(32, 1, 2048, 8192).outcome == "skewed"
    assert Lookups(None, modelled()).steps.ragged(32, 4, 2048, 8192).outcome == "skewed"
    assert graph(entry("32q1s4k", splits(8))).steps.ragged(32, 1, 2048, 8192).outcome == "skewed"


MODELLED = Lookups(None, modelled())
RESERVED = max(rows * count for rows, count in MODELLED.splits_wanted())


@given(st.integers(1, 64), st.integers(1024, 14000), st.floats(1.5, 12))
def test_no_ragged_answer_needs_more_workspace_than_is_reserved(
    batch: int, mean: int, factor: float
) -> None:
    choice = MODELLED.steps.ragged(batch, 1, mean, int(mean * factor))
    asked = choice.plan.number("num_kv_splits")
    assert asked is None or batch * asked <= RESERVED


def gaining(shape: str, low: float, backend: str = "TRITON_MLA") -> Table:
    """A table of one entry that is proven to gain so much."""
    tabled = entry(shape, splits(4), speedup=Speedup(median=low, low=low, high=low), **UNGUARDED)
    mode = {"mode": "eager", "max_model_len": 131072}
    return Table(header(engine=mode, backend=backend), (tabled,))


TABLES = (
    modelled(),
    modelled(error=0.3),
    gaining("32q1s4k", 1.3),
    gaining("32q1s4k", 3.0, "FLASH_ATTN_MLA"),
    gaining("8q4s2k", 1.2),
)
ENGINES = [Lookups(None, table).steps for table in TABLES]


def without_factor(reason: str) -> str:
    return re.sub(r"off by a factor [\d.]+", "off by a factor", reason)


@example(2, 32, 1, 73, 1.0)
@given(
    st.sampled_from(range(len(TABLES))),
    st.one_of(st.sampled_from([8, 32]), st.integers(2, 256)),
    st.sampled_from([1, 1, 1, 4]),
    st.integers(64, 16384),
    st.floats(1, 12),
)
def test_a_lookup_says_what_an_engine_does(
    which: int, batch: int, query_len: int, mean: int, skew: float
) -> None:
    longest = max(mean, min(int(mean * skew), longest_of(batch, query_len, mean)))
    shape = with_longest(batch, query_len, mean, longest)
    lengths = Lengths(batch, shape.num_kv_tokens, longest)
    found = TABLES[which].lookup_shape(shape)
    choice = ENGINES[which].step(batch, query_len, longest, lengths)
    if choice.reason.endswith("not foreseen for this batch"):
        return  # the table knows no workspace
    assert (choice.outcome == "hit", choice.plan) == (found.is_hit, found.plan)
    # An engine keeps what it has found for an eighth of an octave of lengths.
    assert without_factor(choice.reason) == without_factor(found.reason)
