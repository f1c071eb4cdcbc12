from mla_tune.vllm.plugin.splits import SplitLengths, row_splits_needed
from mla_tune.vllm.triton_splits import SplitRule

H200_SMS = 132


def needed(**changes: object) -> int:
    arguments = {
        "captured": [(32, 8)],
        "eager": [],
        "rows": 1024,
        "vllm_splits": 256,
        "num_heads": 16,
        "kv_lora_rank": 512,
        "sm_count": H200_SMS,
    }
    return row_splits_needed(**(arguments | changes))  # type: ignore[arg-type]


def test_a_workspace_has_room_for_every_graph() -> None:
    assert needed(captured=[(512, 16), (1, 64)]) == 512 * 16
    assert needed(eager=[(600, 32)]) == 600 * 32
    # Rows beyond the engine's most do not occur.
    assert needed(eager=[(4096, 32)]) == 1024 * 32


def test_a_step_without_an_entry_still_fills_the_gpu() -> None:
    assert needed() == 16 * 2 * H200_SMS
    assert needed(num_heads=128) == 1024  # one split a row is more
    assert needed(rows=8) == 8 * 256  # never more than vLLM itself reserves


def test_a_workspace_stays_within_what_the_kernel_addresses() -> None:
    """Vllm's own 256 splits of 512 rows at 128 heads end in an illegal memory access."""
    most = needed(captured=[(512, 256)], num_heads=128)
    assert most * 128 * 513 < 2**31


def lengths(row_splits: int | None) -> SplitLengths:
    """For a vLLM that gives each split 512 tokens, in powers of two."""
    rule = SplitRule(lambda length, _: min(1 << max(0, length // 512).bit_length() >> 1, 64), 32)
    return SplitLengths(rule, row_splits)


def test_a_count_is_asked_for_by_a_length_that_vllm_takes_it_for() -> None:
    asked = lengths(None)
    length, fits = asked.asking_for(8, 1000)
    assert fits
    assert length is not None
    assert asked.rule.splits(length) == 8


def test_no_more_splits_are_asked_for_than_the_workspace_has_room_for() -> None:
    asked = lengths(64)
    for rows, most in ((8, 8), (9, 4), (64, 1), (1000, 1)):
        length, fits = asked.asking_for(16, rows)
        assert not fits
        assert length is not None
        assert asked.rule.splits(length) == most
    assert asked.asking_for(16, 4)[1]


def test_a_count_that_vllm_never_takes_has_no_length() -> None:
    assert lengths(None).asking_for(6, 1) == (None, False)
