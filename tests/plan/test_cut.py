import pytest

from mla_tune.plan.cut import ScheduledSplits, TiledSplits


def test_a_part_is_whole_tiles_of_the_longest_split():
    cutter = TiledSplits(132, 16)
    assert cutter.cut(1, 4096, 8).part_tokens == 512
    assert cutter.cut(1, 4096, 256).part_tokens == 32
    # 35 tokens of the longest split are two tiles.
    assert cutter.cut(26, 551, 16).part_tokens == 64


def test_heads_beyond_a_block_are_more_blocks():
    assert TiledSplits(132, 128).cut(2, 4096, 4).rows == 16
    assert TiledSplits(132, 20).cut(2, 4096, 4).rows == 4


@pytest.mark.parametrize(
    ("batch", "kv_len", "cap", "splits"),
    [
        # 64 tiles of a request, 26 a multiprocessor: three splits, which are two waves.
        (48, 4096, 32, 3),
        (48, 4096, 2, 2),
        (48, 4096, 0, 3),
        (1, 16384, 0, 86),
        # Its own bound: 0.85 of 128, and one up to four tiles.
        (1, 65536, 0, 109),
        (1, 65536, 128, 114),
        (1, 256, 0, 1),
        (1, 256, 8, 4),
        # More requests than its scheduler shares out.
        (993, 64, 32, 1),
        (1, 16384, 32, 32),
        (256, 1024, 32, 1),
        (48, 4096, 1, 1),
    ],
)
def test_a_cap_bounds_the_splits_that_flash_attention_chooses(batch, kv_len, cap, splits):
    assert ScheduledSplits(132, 16).cut(batch, kv_len, cap).splits == splits


def test_only_a_cap_of_one_leaves_out_the_combining_kernel():
    cutter = ScheduledSplits(132, 16)
    assert not cutter.cut(256, 1024, 1).is_combined
    assert not cutter.cut(256, 256, 0).is_combined
    assert cutter.cut(256, 1024, 2).is_combined
