from types import SimpleNamespace

from mla_tune.vllm.compat import parallel


def test_a_release_without_a_setting_does_not_spread_anything() -> None:
    config = SimpleNamespace()
    assert parallel.decode_context_parallel(config) == 1
    assert parallel.prefill_context_parallel(config) == 1
    assert not parallel.microbatched(config)


def test_either_switch_means_microbatches() -> None:
    assert parallel.microbatched(SimpleNamespace(enable_dbo=True))
    assert parallel.microbatched(SimpleNamespace(enable_dbo=False, use_ubatching=True))


def test_a_rank_holds_its_share_in_turns() -> None:
    spread = SimpleNamespace(decode_context_parallel_size=4, cp_kv_cache_interleave_size=16)
    assert [parallel.local_kv_len(spread, n) for n in (1, 64, 65, 131072)] == [16, 16, 32, 32768]
    by_token = SimpleNamespace(decode_context_parallel_size=2)
    assert parallel.local_kv_len(by_token, 4097) == 2049
    assert parallel.local_kv_len(SimpleNamespace(cp_kv_cache_interleave_size=16), 4097) == 4097
