import pytest
import torch

from faulty import FAULTS, Misbehaving
from mla_tune.backends.torch_mla import TorchMlaSession
from mla_tune.correctness import OutputCheck
from mla_tune.errors import PlanFailure
from mla_tune.knobs import Plan
from mla_tune.shapes import BatchShape
from torch_mla_cases import SETUP

MIXED = BatchShape.parse("q30s100_q16_2q4s70_q1s1_q1s129")
LONG = BatchShape.parse("q120s200")  # more tokens than the reference samples
BAD = Plan(num_kv_splits=2)


@pytest.fixture(scope="module")
def session():
    return TorchMlaSession(SETUP)


def check_of(session, shape, monkeypatch=None, fault=None):
    """The check of one shape, where `BAD` has a fault."""
    session.load([shape])
    default = session.plan_space([shape]).default
    if fault is not None:
        prepare = session.prepare

        def prepare_faulty(shape, plan):
            prepared = prepare(shape, plan)
            return Misbehaving(prepared, fault) if plan == BAD else prepared

        monkeypatch.setattr(session, "prepare", prepare_faulty)
    return OutputCheck(session, [shape], default), default


def refusal(check):
    with pytest.raises(PlanFailure) as caught:
        check.verify(BAD)
    assert caught.value.kind == "wrong result"
    return caught.value.what


@pytest.mark.parametrize("shape", [MIXED, LONG], ids=str)
def test_right_plans_pass(session, shape):
    check, _ = check_of(session, shape)
    for plan in session.plan_space([shape]).plans:
        check.verify(plan)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("scales by 1 %", "relative error 0.01 against float64"),
        ("leaves one element unwritten", "1 of "),
        ("spoils one row", "relative error"),
    ],
)
def test_a_wrong_output_is_caught(session, monkeypatch, fault, says):
    check, default = check_of(session, MIXED, monkeypatch, FAULTS[fault])
    check.verify(default)
    assert says in refusal(check)


def spoil(row, factor=1.1):
    def spoil_row(output):
        output[row].mul_(factor)

    return spoil_row


@pytest.mark.parametrize("row", range(0, 120, 7))
def test_any_wrong_row_is_caught_even_where_the_reference_does_not_look(session, monkeypatch, row):
    check, default = check_of(session, LONG, monkeypatch, spoil(row))
    check.verify(default)
    assert "relative error" in refusal(check)


def test_a_row_too_slightly_wrong_to_show_in_the_whole_is_named(session, monkeypatch):
    check, default = check_of(session, LONG, monkeypatch, spoil(119, 1.01))
    check.verify(default)
    assert "in row 119 against float64" in refusal(check)


def test_an_output_scaled_by_less_than_single_values_are_right_to_is_caught(session, monkeypatch):
    # In bfloat16 a single value is right to 2 %; the scale of all of them to far less.
    monkeypatch.setattr("mla_tune.correctness.TOLERANCES", {"torch.float32": 2e-2})
    check, _ = check_of(session, MIXED, monkeypatch, FAULTS["scales by 1 %"])
    assert "scaled by 1.01" in refusal(check)


def test_an_output_that_is_left_over_from_another_plan_is_no_output(session, monkeypatch):
    class Lazy(Misbehaving):
        def applied(self):
            from contextlib import nullcontext

            return nullcontext(lambda: None)

    check, default = check_of(session, MIXED)
    check.verify(default)
    prepare = session.prepare
    monkeypatch.setattr(
        session, "prepare", lambda shape, plan: Lazy(prepare(shape, plan), lambda _out: None)
    )
    assert "not finite" in refusal(check)


def test_the_queries_are_what_they_were_after_a_check(session):
    check, default = check_of(session, MIXED)
    before = session.queries(MIXED).clone()
    check.verify(default)
    assert torch.equal(session.queries(MIXED), before)


def test_the_queries_are_what_they_were_after_a_check_that_raised(session, monkeypatch):
    def boom(_output):
        raise RuntimeError("boom")

    check, _ = check_of(session, MIXED, monkeypatch, boom)
    before = session.queries(MIXED).clone()
    with pytest.raises(RuntimeError, match="boom"):
        check.verify(BAD)
    assert torch.equal(session.queries(MIXED), before)
