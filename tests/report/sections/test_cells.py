"""Where the batches of an entry stand in a heat map."""

from mla_tune.plan.plan import Plan
from mla_tune.report.sections.cells import Kind, cells_of, placed_cells
from mla_tune.table import CaseResult, Entry, Speedup

GAIN = Speedup(median=2.0, low=1.9, high=2.1)


def case(kv_len: int, weight: float, shape: str | None = None) -> CaseResult:
    return CaseResult(
        kv_len=kv_len, shape=shape, weight=weight, latency_us=1.0, default_us=2.0, speedup=GAIN
    )


def entry(batch: int) -> Entry:
    """As a graph's: listed lengths, a guard as far as the memory goes, and ragged batches."""
    half = batch // 2
    ragged = f"{half}q1s1900_{half}q1s200"
    return Entry(
        shape=f"{batch}q1s{{1k,4k}}",
        plan=Plan(num_kv_splits=2),
        latency_us=1.0,
        default_us=2.0,
        speedup=GAIN,
        cases=(
            case(1024, 1.0),
            case(4096, 1.0),
            case(2_000_000 // batch, 0.0),
            case(1900, 1.0, ragged),
            case(100_000 // batch, 0.0, f"q1s{100_000 // batch}_{batch - 1}q1s100"),
        ),
    )


def cells(kind: Kind):
    found = [cell for batch in range(32, 64, 2) for cell in cells_of(entry(batch))]
    return [cell for cell in found if cell.kind is kind]


def columns(kind: Kind) -> set[str]:
    return {name for _, (_, name) in placed_cells(cells(kind))}


def test_lengths_that_few_sizes_have_share_the_last_column():
    assert columns(Kind.DECODE) == {"1k", "4k", "longest"}
    assert len(placed_cells(cells(Kind.DECODE))) == 3 * 16


def test_ragged_batches_stand_by_their_mean_and_those_of_one_long_request_apart():
    assert columns(Kind.RAGGED) == {"1k", "one long"}


def test_an_entry_without_cases_has_those_of_its_key():
    kept = Entry(shape="8q1s{1k,4k,16k}", plan=Plan(), latency_us=1.0, default_us=1.0)
    found = list(cells_of(kept))
    assert {cell.told_gain for cell in found} == {"default kept"}
    assert [cell.shape.max_kv_len for cell in found] == [1024, 4096, 16384]
