"""Is a plan's output right? Compared with float64, with inputs that make mistakes show."""

__all__ = ["TOLERANCES", "OutputCheck"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.session import Reference, Session
from mla_tune.shapes import BatchShape

if TYPE_CHECKING:
    import torch

# Relative error ||out - ref|| / ||ref|| allowed, by the dtype of the output. Twice to three
# times what right plans were seen to reach with the magnified queries below.
TOLERANCES = {"torch.float32": 1e-3, "torch.float16": 4e-3, "torch.bfloat16": 2e-2}

# For tokens whose softmax weights the kernel rounds to e4m3 before it multiplies them with the
# values (FLASHMLA and the SM100 kernels, with an fp8 cache). Three bits of mantissa leave each
# weight off by 2.6 % (root mean square), and as much of the output where all weights are alike;
# right plans were seen at 0.6 % with the magnified queries below. The rounded queries are in the
# reference: without them the default itself is off by 8 % (FLASHMLA, vLLM 0.33.0, H100).
FP8_TOLERANCE = 2**-5

# A plan may be this much farther off than the default is, on tokens that both compute alike. Two
# right plans differ in the order of their sums only.
DEFAULT_FACTOR = 3.0

# Rounding is as often up as down, so over all elements the output's scale is right to far less
# than a single value is; a lost or doubled split is not.
SCALE_TOLERANCE = 5e-3

# One row may be this much worse than the whole.
ROW_FACTOR = 4.0

# Larger scores make softmax peaky, so that one key decides and a misread key shows: with small
# random inputs all keys weigh alike and a wrong split-KV merge went unnoticed (SGLang #6101).
MAGNITUDE = 8.0


class OutputCheck:
    """The expected outputs of the current workload, and the comparison with them."""

    def __init__(self, session: Session, shapes: Sequence[BatchShape], default: Plan) -> None:
        self._session = session
        self._shapes = shapes
        self._default = default
        self._expected: dict[tuple[BatchShape, int, int], Reference] = {}
        self._default_output: dict[BatchShape, torch.Tensor] = {}

    def verify(self, plan: Plan) -> None:
        """Raise `PlanFailure` of kind ``wrong result`` unless every shape's output is right."""
        for shape in self._shapes:
            output = self._output(shape, plan)
            problem = self._problem(shape, plan, output)
            if problem is not None:
                wrong = FailureKind.WRONG_RESULT
                raise PlanFailure(f"{shape}: {problem}", plan=plan, kind=wrong)

    def _output(self, shape: BatchShape, plan: Plan) -> "torch.Tensor":
        """Run once with magnified queries, output and scratch memory full of NaN."""
        queries, precision = self._session.queries(shape), self._precision(shape, plan)
        prepared = self._session.prepare(shape, plan)
        queries.mul_(MAGNITUDE)
        try:
            if (shape, *precision) not in self._expected:
                self._expected[shape, *precision] = self._session.reference(shape, *precision)
            self._session.poison_scratch()
            prepared.output.fill_(float("nan"))
            with prepared.applied() as run:
                run()
            return prepared.output.double()
        finally:
            queries.div_(MAGNITUDE)

    def _precision(self, shape: BatchShape, plan: Plan) -> tuple[int, int]:
        """Up to which token the kernel multiplies in fp8, and from which on ``kv_b_proj`` does."""
        session = self._session
        return session.fp8_tokens(shape, plan), session.projected_from(shape, plan)

    def _problem(self, shape: BatchShape, plan: Plan, output: "torch.Tensor") -> str | None:
        unwritten = int((~output.isfinite()).sum())
        if unwritten:
            return f"{unwritten} of {output.numel()} output elements are not finite"
        fp8_tokens, _ = precision = self._precision(shape, plan)
        expected = self._expected[shape, *precision]
        for part, tolerance in self._by_precision(shape, expected.rows, fp8_tokens):
            rows = expected.rows[part]
            problem = _difference(output[rows], expected.values[part], tolerance, "float64", rows)
            if problem is not None:
                return problem
        if plan == self._default:
            self._default_output[shape] = output
            return None
        # A failure may have taken the worker, and with it the default's output.
        return self._against_default(shape, plan, output) if self._default_output else None

    def _by_precision(
        self, shape: BatchShape, rows: "torch.Tensor", fp8_tokens: int
    ) -> list[tuple["torch.Tensor", float]]:
        """Masks of the ``rows`` computed in fp8 and of the others, with what each may be off by."""
        plain = TOLERANCES[str(self._session.queries(shape).dtype)]
        parts = [(rows < fp8_tokens, FP8_TOLERANCE), (rows >= fp8_tokens, plain)]
        return [(part, tolerance) for part, tolerance in parts if bool(part.any())]

    def _against_default(self, shape: BatchShape, plan: Plan, output: "torch.Tensor") -> str | None:
        """Compare with the default's output, where both compute in the same precision."""
        import torch

        default = self._default_output[shape]
        precision = self._precision(shape, plan)
        rows = torch.arange(len(output), device=output.device)
        alike = torch.ones_like(rows, dtype=torch.bool)
        for mine, theirs in zip(precision, self._precision(shape, self._default), strict=True):
            alike &= (rows < min(mine, theirs)) | (rows >= max(mine, theirs))
        expected = self._expected[shape, *precision]
        for part, tolerance in self._by_precision(shape, rows, precision[0]):
            # Also the rows that no reference samples; both sides may err, hence twice.
            compared = rows[part & alike]
            problem = None
            if len(compared):
                problem = _difference(
                    output[compared], default[compared], 2 * tolerance, "the default plan", compared
                )
            sampled = (part & alike)[expected.rows]
            if problem is None and bool(sampled.any()):
                compared, values = expected.rows[sampled], expected.values[sampled]
                problem = _much_farther(output[compared], default[compared], values, tolerance)
            if problem is not None:
                return problem
        return None


def _much_farther(
    output: "torch.Tensor", default: "torch.Tensor", expected: "torch.Tensor", tolerance: float
) -> str | None:
    """Say so where a plan within the tolerance is still much farther off than the default is."""
    mine, theirs = _error(output, expected), _error(default, expected)
    if mine <= max(DEFAULT_FACTOR * theirs, tolerance / 2):
        return None
    return f"relative error {mine:.2g} against float64, where the default plan has {theirs:.2g}"


def _error(output: "torch.Tensor", expected: "torch.Tensor") -> float:
    return float((output - expected).norm() / expected.norm())


def _difference(
    output: "torch.Tensor",
    expected: "torch.Tensor",
    tolerance: float,
    what: str,
    rows: "torch.Tensor",
) -> str | None:
    """Say how two ``[len(rows), values]`` differ beyond ``tolerance``, or None.

    ``rows`` are the row numbers to name.
    """
    norms = expected.norm(dim=-1)
    row_errors = (output - expected).norm(dim=-1) / norms
    error = _error(output, expected)
    scale = float((output * expected).sum() / (expected * expected).sum())
    worst = float(row_errors.max())
    if error > tolerance:
        return f"relative error {error:.2g} against {what}; allowed {tolerance:g}"
    if worst > ROW_FACTOR * tolerance:
        row = int(rows[int(row_errors.argmax())])
        allowed = ROW_FACTOR * tolerance
        return f"relative error {worst:.2g} in row {row} against {what}; allowed {allowed:g}"
    if abs(scale - 1) > SCALE_TOLERANCE:
        return f"scaled by {scale:.4f} against {what}; allowed 1 ± {SCALE_TOLERANCE:g}"
    return None
