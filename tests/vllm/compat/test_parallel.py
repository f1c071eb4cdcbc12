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
