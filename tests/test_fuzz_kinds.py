"""Mutants of every kind of input end in success or in an error of ours; seeds are fixed."""

import pytest

from fuzz_kinds import KINDS, read
from fuzzing import mutants


@pytest.mark.parametrize("name", KINDS)
def test_the_seeds_are_read(name, tmp_path):
    kind = KINDS[name]
    for number, seed in enumerate(kind.seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert read(kind, seed, folder) is None


@pytest.mark.parametrize("name", KINDS)
def test_a_mutant_is_read_or_refused(name, tmp_path):
    kind = KINDS[name]
    for number, mutant in enumerate(mutants(kind, 150)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            read(kind, mutant, folder)
        except BaseException as error:
            shown = mutant if len(mutant) < 3000 else mutant[:3000] + b"..."
            raise AssertionError(f"{name} {number}: {shown!r}") from error
