from contextlib import nullcontext

import pytest
import torch

from faulty import FAULTS, Misbehaving
from mla_tune.measuring.correctness import FP8_TOLERANCE, TOLERANCES, OutputCheck
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.session import Reference
from mla_tune.shapes import BatchShape
from mla_tune.torch_mla.backend import TorchMlaSession
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
    monkeypatch.setattr("mla_tune.measuring.correctness.TOLERANCES", {"torch.float32": 2e-2})
    check, _ = check_of(session, MIXED, monkeypatch, FAULTS["scales by 1 %"])
    assert "scaled by 1.01" in refusal(check)


def test_an_output_that_is_left_over_from_another_plan_is_no_output(session, monkeypatch):
    class Lazy(Misbehaving):
        def applied(self):
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


class ScriptedSession:
    """Eight rows of bfloat16; plans decide how many are computed in fp8, and how far they are off.

    ``off`` gives each plan's relative error; its fp8 rows stand 8 % beside its other rows' values,
    as a query rounded to fp8 puts them, and so do, on the other side, the rows that it computes
    from an fp8 ``kv_b_proj``.
    """

    def __init__(self, fp8_tokens, off, projected_from=None):
        generator = torch.Generator().manual_seed(0)
        self.plain = torch.randn(8, 64, generator=generator).double()
        self.aside = 0.08 * torch.randn(8, 64, generator=generator).double()
        self.noise = torch.randn(8, 64, generator=generator).double()
        self._fp8_tokens, self._off = fp8_tokens, off
        self._projected_from = projected_from or dict.fromkeys(off, 8)
        self._query = torch.ones(8, 1, 1, dtype=torch.bfloat16)

    def queries(self, _shape):
        return self._query

    def poison_scratch(self):
        pass

    def fp8_tokens(self, _shape, plan):
        return self._fp8_tokens[plan]

    def projected_from(self, _shape, plan):
        return self._projected_from[plan]

    def _values(self, fp8_tokens, projected_from):
        rows = torch.arange(8)
        aside = (rows < fp8_tokens).double() - (rows >= projected_from).double()
        return self.plain + self.aside * aside.unsqueeze(1)

    def reference(self, _shape, fp8_tokens=0, projected_from=8):
        return Reference(torch.arange(8), self._values(fp8_tokens, projected_from))

    def prepare(self, _shape, plan):
        right = self._values(self._fp8_tokens[plan], self._projected_from[plan])
        return ScriptedPlan(right + self._off[plan] * self.noise)


class ScriptedPlan:
    def __init__(self, result):
        self._result = result
        self.output = torch.zeros_like(result)

    def applied(self):
        return nullcontext(lambda: self.output.copy_(self._result))


def scripted(fp8_tokens, off):
    plans = [Plan(reorder_batch_threshold=n + 1) for n in range(len(off))]
    session = ScriptedSession(
        dict(zip(plans, fp8_tokens, strict=True)), dict(zip(plans, off, strict=True))
    )
    return OutputCheck(session, [BatchShape.parse("8q1s16")], plans[0]), plans


def test_rows_in_fp8_may_be_off_by_what_fp8_rounds_and_the_others_may_not():
    allowed = 0.9 * FP8_TOLERANCE
    assert allowed > TOLERANCES["torch.bfloat16"]
    check, plans = scripted([8, 8, 4], [allowed, allowed, allowed])
    check.verify(plans[0])
    check.verify(plans[1])
    with pytest.raises(PlanFailure, match=r"against float64; allowed 0\.02"):
        check.verify(plans[2])


def test_a_plan_on_another_path_is_not_blamed_for_the_rounding_of_the_default():
    check, plans = scripted([8, 0, 4], [0.005, 0.005, 0.005])
    for plan in plans:
        check.verify(plan)


def test_a_threshold_is_not_blamed_for_the_rounding_of_fp8_weights():
    plans = [Plan(reorder_batch_threshold=n + 1) for n in range(3)]
    off = dict.fromkeys(plans, 0.005)
    # The default decodes all, the second prefills all; the third is wrong where it prefills.
    projected_from = dict(zip(plans, (8, 0, 4), strict=True))
    session = ScriptedSession(dict.fromkeys(plans, 0), off, projected_from)
    check = OutputCheck(session, [BatchShape.parse("8q1s16")], plans[0])
    check.verify(plans[0])
    check.verify(plans[1])
    check.verify(plans[2])
    off[plans[2]] = 0.05
    with pytest.raises(PlanFailure, match=r"against float64; allowed 0\.02"):
        check.verify(plans[2])


def test_a_plan_much_farther_off_than_the_default_is_wrong_within_the_tolerance_too():
    check, plans = scripted([0, 0, 8], [0.003, 0.018, 0.018])
    check.verify(plans[0])
    with pytest.raises(
        PlanFailure, match=r"0\.018 against float64, where the default plan has 0\.003"
    ):
        check.verify(plans[1])
    check.verify(plans[2])


def test_a_default_that_is_wrong_is_refused_like_any_plan():
    check, plans = scripted([8, 8], [0.08, 0.005])
    with pytest.raises(PlanFailure, match=r"allowed 0\.03125"):
        check.verify(plans[0])
    check.verify(plans[1])
