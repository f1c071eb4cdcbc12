"""Is a plan's output right? Compared with float64, with inputs that make mistakes show."""

__all__ = ["TOLERANCES", "OutputCheck"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mla_tune.backends.interface import Reference, Session
from mla_tune.errors import PlanFailure
from mla_tune.knobs import Plan
from mla_tune.shapes import BatchShape

if TYPE_CHECKING:
    import torch

# Relative error ||out - ref|| / ||ref|| allowed, by the dtype of the output. Twice to three
# times what right plans were seen to reach with the magnified queries below.
TOLERANCES = {"torch.float32": 1e-3, "torch.float16": 4e-3, "torch.bfloat16": 2e-2}

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
        self._expected: dict[BatchShape, Reference] = {}
        self._default_output: dict[BatchShape, torch.Tensor] = {}

    def verify(self, plan: Plan) -> None:
        """Raise `PlanFailure` of kind ``wrong result`` unless every shape's output is right."""
        for shape in self._shapes:
            output = self._output(shape, plan)
            problem = self._problem(shape, plan, output)
            if problem is not None:
                raise PlanFailure(f"{shape}: {problem}", kind="wrong result")

    def _output(self, shape: BatchShape, plan: Plan) -> "torch.Tensor":
        """Run once with magnified queries, output and scratch memory full of NaN."""
        queries = self._session.queries(shape)
        prepared = self._session.prepare(shape, plan)
        queries.mul_(MAGNITUDE)
        try:
            if shape not in self._expected:
                self._expected[shape] = self._session.reference(shape)
            self._session.poison_scratch()
            prepared.output.fill_(float("nan"))
            with prepared.applied() as run:
                run()
            return prepared.output.double()
        finally:
            queries.div_(MAGNITUDE)

    def _problem(self, shape: BatchShape, plan: Plan, output: "torch.Tensor") -> str | None:
        tolerance = TOLERANCES[str(self._session.queries(shape).dtype)]
        unwritten = int((~output.isfinite()).sum())
        if unwritten:
            return f"{unwritten} of {output.numel()} output elements are not finite"
        expected = self._expected[shape]
        sampled = output[expected.rows]
        problem = _difference(sampled, expected.values, tolerance, "float64", expected.rows)
        if problem is not None:
            return problem
        if plan == self._default:
            self._default_output[shape] = output
            return None
        # Rows that the reference does not sample; both sides may err, hence twice.
        default = self._default_output.get(shape)
        if default is None:
            return None
        return _difference(output, default, 2 * tolerance, "the default plan")


def _difference(
    output: "torch.Tensor",
    expected: "torch.Tensor",
    tolerance: float,
    what: str,
    rows: "torch.Tensor | None" = None,
) -> str | None:
    """Say how two ``[rows, values]`` differ beyond ``tolerance``, or None.

    ``rows`` are the row numbers to name, where they are not all.
    """
    norms = expected.norm(dim=-1)
    row_errors = (output - expected).norm(dim=-1) / norms
    error = float((output - expected).norm() / expected.norm())
    scale = float((output * expected).sum() / (expected * expected).sum())
    worst = float(row_errors.max())
    if error > tolerance:
        return f"relative error {error:.2g} against {what}; allowed {tolerance:g}"
    if worst > ROW_FACTOR * tolerance:
        row = int(row_errors.argmax())
        row = row if rows is None else int(rows[row])
        allowed = ROW_FACTOR * tolerance
        return f"relative error {worst:.2g} in row {row} against {what}; allowed {allowed:g}"
    if abs(scale - 1) > SCALE_TOLERANCE:
        return f"scaled by {scale:.4f} against {what}; allowed 1 ± {SCALE_TOLERANCE:g}"
    return None
