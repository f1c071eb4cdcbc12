import json

import pytest

from fuzzing import Kind, json_dump, json_parse, mutants, refusal
from mla_tune.errors import EnvironmentFailure, InputError

KIND = Kind(
    name="tests",
    seeds=(b'{"a": 1, "b": [1, 2, "x"]}', b'{"c": {"d": null}}'),
    read=lambda path: json.loads(path.read_bytes()),
    suffix=".json",
    parse=json_parse,
    dump=json_dump,
)


def test_the_same_seed_gives_the_same_mutants_and_another_seed_others():
    first, again, other = (list(mutants(KIND, 50, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_most_mutants_differ_from_each_other_and_from_the_seeds():
    made = set(mutants(KIND, 400))
    assert len(made - set(KIND.seeds)) > 250


def test_both_data_and_bytes_are_mutated():
    def is_json(data):
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            return False
        return True

    readable = [is_json(data) for data in mutants(KIND, 200)]
    assert 40 < sum(readable) < 180


def test_an_error_of_ours_is_a_refusal_and_all_others_pass_on():
    def fails_with(error):
        def read():
            raise error

        return read

    assert refusal(lambda: 1) is None
    assert str(refusal(fails_with(InputError("no")))) == "no"
    assert refusal(fails_with(SystemExit(1))) is None
    assert refusal(fails_with(SystemExit(2))) is not None
    for unexpected in (ValueError("x"), EnvironmentFailure("x"), RecursionError()):
        with pytest.raises(type(unexpected)):
            refusal(fails_with(unexpected))
    with pytest.raises(AssertionError, match="exit code 3"):
        refusal(fails_with(SystemExit(3)))
