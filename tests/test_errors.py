import pickle

import pytest

from mla_tune.errors import (
    EnvironmentFailure,
    InputError,
    MlaTuneError,
    UnavailableError,
    WorkloadFailure,
    nearest_hint,
)


def test_a_message_says_what_is_wrong_what_is_valid_and_what_to_do():
    error = InputError("a.yaml:3: KV length is 0", valid="1 or more", remedy="correct it")
    assert str(error) == "a.yaml:3: KV length is 0\n  valid: 1 or more\n  to do: correct it"


def test_a_message_leaves_out_what_it_does_not_have():
    assert str(MlaTuneError("boom")) == "boom"


@pytest.mark.parametrize(
    "kind", [MlaTuneError, InputError, UnavailableError, EnvironmentFailure, WorkloadFailure]
)
def test_errors_cross_a_process_boundary_whole(kind):
    error = pickle.loads(pickle.dumps(kind("what", valid="valid", remedy="remedy")))
    assert type(error) is kind
    assert (error.what, error.valid, error.remedy) == ("what", "valid", "remedy")


def test_a_workload_failure_crosses_with_its_causes():
    failure = WorkloadFailure("what", causes=("a", "b"), remedy="remedy")
    copy = pickle.loads(pickle.dumps(failure))
    assert (copy.what, copy.causes, copy.remedy) == ("what", ("a", "b"), "remedy")
    assert copy.args == failure.args


@pytest.mark.parametrize(
    ("kind", "code"),
    [(InputError, 2), (UnavailableError, 2), (EnvironmentFailure, 3), (WorkloadFailure, 1)],
)
def test_exit_codes(kind, code):
    assert kind("x").exit_code == code


def test_the_nearest_name_is_suggested_and_a_far_one_is_not():
    assert nearest_hint("batch_spec", ["batch_specs", "model"]) == "did you mean 'batch_specs'?"
    assert nearest_hint("zzz", ["batch_specs", "model"]) == ""
    assert nearest_hint("triton", ["triton_mla"]) == "did you mean 'triton_mla'?"


@pytest.mark.parametrize(
    "value", ["fp8_e5m2", "nvfp4", "int8", "kimi-k3", "AITER_MLA", "CUDNN_MLA"]
)
def test_the_right_name_of_another_thing_is_no_misspelling(value):
    known = ["fp8_e4m3", "fp8", "bfloat16", "kimi-k2", "TRITON_MLA", "CUTLASS_MLA"]
    assert nearest_hint(value, known) == ""


def test_what_is_quoted_from_a_file_reaches_no_terminal_unescaped():
    error = InputError("t.yaml:3: key '\x1b[2J'\n  ^^^", valid="a\x07b", remedy="\u202e")
    assert str(error) == "t.yaml:3: key '\\x1b[2J'\n  ^^^\n  valid: a\\x07b\n  to do: \\u202e"
    assert error.what.startswith("t.yaml:3: key '\x1b")
