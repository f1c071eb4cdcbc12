import pytest

from mla_tune.errors import InputError
from mla_tune.versions import is_development_build, is_same_release, minor_release, release_numbers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.26.0", "0.26.4"),
        ("0.33rc1", "0.33.0"),
        ("0.33.0rc2", "0.33.1"),
        ("0.26.0+cu130", "0.26.0"),
        ("0.26.0.post1", "0.26.0"),
        ("v0.26.0", "0.26.0"),
        ("0.1.dev5+gabc", "0.1.dev5+gabc"),
        ("3.6.0", "3.6.0+git9844da95"),
        ("none", "none"),
    ],
)
def test_versions_that_are_the_same_for_a_table(one: str, other: str) -> None:
    assert minor_release(one) == minor_release(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.26.0", "0.27.0"),
        ("0.2.0", "0.26.0"),
        ("1.26.0", "0.26.0"),
        ("0.23.0", "0.23.1rc1.dev727"),
        ("0.1.dev5", "0.1.dev6"),
        ("0.1.dev5+gabc", "0.1.dev5+gdef"),
        ("0.1.dev5+gabc", "0.1.dev5"),
        ("0.33.0.dev1", "0.33.0"),
        ("none", "0.26.0"),
        ("main", "master"),
    ],
)
def test_versions_that_are_not(one: str, other: str) -> None:
    assert minor_release(one) != minor_release(other)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("0.26.0", (0, 26, 0)),
        ("v0.26.0", (0, 26, 0)),
        ("0.33rc1", (0, 33, 0)),
        ("0.23.1rc1.dev727+g1a2b3c4", (0, 23, 1)),
        ("0.26.0+cu129", (0, 26, 0)),
    ],
)
def test_the_numbers_of_a_release(version: str, numbers: tuple[int, int, int]) -> None:
    assert release_numbers(version) == numbers


@pytest.mark.parametrize("version", ["newest", "1", "", "0.26.x", "9" * 5000])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(InputError, match="cannot read the version"):
        release_numbers(version)


def test_development_builds() -> None:
    assert is_development_build("0.1.dev5+gabc")
    assert not is_development_build("0.33rc1")
    assert not is_development_build("main")
    assert not is_development_build("9" * 5000)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.26.0", "0.26.0+cu130", True),
        ("0.26.0", "v0.26", True),
        ("0.26.0", "0.26.1", False),
        ("0.26.0", "0.26.0.post1", False),
        ("0.26.0.dev3+gabc", "0.26.0.dev3+gabc", False),
        ("none", "none", False),
    ],
)
def test_a_release_is_one_with_its_patch_number_wherever_it_was_built(one, other, same):
    assert is_same_release(one, other) is same
