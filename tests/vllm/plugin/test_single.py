import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Entry
from mla_tune.vllm.plugin.single import best_prefill_backend, best_threshold
from tabled_engine import entry

VLLM_OWN = 512


def measured(shape: str, threshold: int | None, gain: float = 1.0, **fields: object) -> Entry:
    plan = None if threshold is None else Plan(reorder_batch_threshold=threshold)
    fields = {"default_us": 100.0, "latency_us": 100.0 / gain} | fields
    default = Plan(reorder_batch_threshold=VLLM_OWN)
    return entry(shape, plan, default_plan=default, **fields)


def test_no_entries_leave_vllms_own() -> None:
    assert best_threshold([], VLLM_OWN) == VLLM_OWN


def test_the_threshold_that_gains_most_wins() -> None:
    entries = [measured("8q512s4k", 256, 1.5), measured("8q384s4k", 256, 1.1)]
    assert best_threshold(entries, VLLM_OWN) == 256


def test_no_entry_may_become_slower_than_by_default() -> None:
    """Queries of 256 were fastest by default (decode): no gain elsewhere outweighs them."""
    entries = [measured("8q512s4k", 128, 3.0), measured("8q256s4k", None)]
    assert best_threshold(entries, VLLM_OWN) == VLLM_OWN


def test_a_tie_frees_an_entry_for_the_others() -> None:
    free = measured("8q256s4k", None, ties=[Plan(reorder_batch_threshold=128)])
    entries = [measured("8q512s4k", 128, 3.0), free]
    assert best_threshold(entries, VLLM_OWN) == 128


def test_a_threshold_that_may_not_rise_stays_or_falls() -> None:
    lens = range(VLLM_OWN + 1, VLLM_OWN + 3)
    longer = [measured(f"8q{n}{kv}", n, 2.0) for n in lens for kv in ("s4k", "")]
    assert best_threshold(longer, VLLM_OWN) == VLLM_OWN + 2
    assert best_threshold(longer, VLLM_OWN, may_rise=False) == VLLM_OWN


def test_single_tokens_and_idle_knobs_say_nothing() -> None:
    idle = entry("8q64s4k", Plan(prefill_backend="fa3"), default_plan=Plan(num_kv_splits=4))
    entries = [entry("8q1s4k", Plan(num_kv_splits=4)), idle]
    assert best_threshold(entries, VLLM_OWN) == VLLM_OWN


def test_an_entry_whose_default_does_not_run_is_no_obstacle() -> None:
    # Applied because it was asked for: MLA_TUNE_UNPROVEN=1.
    entries = [measured("8q512s4k", 256).model_copy(update={"default_us": None})]
    assert best_threshold(entries, VLLM_OWN) == 256


def test_one_decode_beyond_vllms_own_does_not_open_all_lengths_up_to_it() -> None:
    """FLASHMLA with an fp8 cache is wrong there without context."""
    entries = [measured("8q768s8k", 768, 3.0)]
    assert best_threshold(entries, VLLM_OWN) == VLLM_OWN


def test_above_vllms_own_every_length_between_has_been_tried() -> None:
    kinds = ("8q513s4k", "8q513", "8q514s4k", "8q514")
    entries = [measured(shape, 514, 3.0) for shape in kinds]
    assert best_threshold(entries, VLLM_OWN) == 514
    for left_out in range(len(kinds)):
        fewer = [entry for index, entry in enumerate(entries) if index != left_out]
        assert best_threshold(fewer, VLLM_OWN) <= VLLM_OWN + 1
    # Beside lengths that are fastest by default, which is the prefill path.
    assert best_threshold([*entries, measured("8q514s8k", None)], VLLM_OWN) < 514


@pytest.mark.parametrize(
    ("plans", "best"),
    [
        ([], None),
        (["trtllm", "trtllm"], "trtllm"),
        (["trtllm", "flashinfer"], None),
        (["trtllm", None], None),
    ],
)
def test_a_prefill_backend_for_mixed_batches_is_every_entrys(
    plans: list[str | None], best: str | None
) -> None:
    entries = [
        entry(f"{index + 2}q2k", Plan(prefill_backend=name) if name else UNTUNED)
        for index, name in enumerate(plans)
    ]
    assert best_prefill_backend(entries) == best
