from mla_tune.vllm.plugin.splits import row_splits_needed

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
