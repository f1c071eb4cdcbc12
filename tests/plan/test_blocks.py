from mla_tune.plan.blocks import BlockSizes


def test_listed_sizes_are_valid_and_the_first_is_vllms_own() -> None:
    sizes = BlockSizes((32, 64))
    assert sizes.own == 32
    assert (64 in sizes, 128 in sizes) == (True, False)
    assert str(sizes) == "32 or 64"


def test_multiples_of_the_first_are_valid_where_said() -> None:
    sizes = BlockSizes((16,), multiples=True)
    assert (48 in sizes, 24 in sizes) == (True, False)
    assert str(sizes) == "multiples of 16"
