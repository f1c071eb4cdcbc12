import pytest
from shapes_files import refusal

from mla_tune.shapes.file import load_shapes

REGION = "eager: {batch_sizes: [1, 512], kv_lens: [256, 64k]"


def groups(file):
    return [
        (group.count, group.kv_len, group.query_len)
        for case in file.cases
        for group in case.shape.groups
    ]


def test_a_region_is_its_corners_and_what_is_far_from_them(write):
    found = groups(load_shapes(write(REGION + "}\n")))
    assert len(found) == len(set(found)) == 15
    assert {query_len for *_, query_len in found} == {1}
    corners = {(batch, kv_len) for batch in (1, 512) for kv_len in (256, 65536)}
    assert corners < {(batch, kv_len) for batch, kv_len, _ in found}
    # Whatever is inside has a point within two octaves in both directions.
    for batch in (1, 3, 12, 48, 200, 512):
        for kv_len in (256, 1000, 5000, 20_000, 65536):
            assert any(
                batch / 4 <= point[0] <= batch * 4 and kv_len / 4 <= point[1] <= kv_len * 4
                for point in found
            )


def test_more_points_are_the_same_ones_and_more(write):
    few = groups(load_shapes(write(REGION + ", points: 12}\n")))
    many = groups(load_shapes(write(REGION + ", points: 30}\n")))
    assert set(few) < set(many)


def test_a_shape_of_the_region_may_be_listed_too(write):
    file = load_shapes(write(REGION + "}\nbatch_specs: [q1s256, 7q1s3000]\n"))
    assert len(file.cases) == 16


BAD = {
    "no inside": (
        "eager: {batch_sizes: [8, 8], kv_lens: [1k, 4k]}\n",
        ":1: batch_sizes from 8 to 8",
    ),
    "the wrong way": ("eager: {batch_sizes: [1, 8], kv_lens: [4k, 1k]}\n", ":1: kv_lens from 4096"),
    "three ends": ("eager: {batch_sizes: [1, 8, 9], kv_lens: [1k, 4k]}\n", ":1: eager.batch_sizes"),
    "too small": (
        "eager: {batch_sizes: [1, 4], kv_lens: [1k, 2k]}\n",
        ":1: 15 points of a region that has 4 batch sizes and 2 KV lengths",
    ),
    "too few points": (REGION + ", points: 8}\n", ":1: eager.points"),
    "graphs of what": (
        "engine: {modes: [graph, eager]}\n" + REGION + "}\n",
        ":2: eager: is given, and graph mode without graph:",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_what_is_no_region_is_refused_by_line(write, text, says):
    assert says in refusal(write(text))
