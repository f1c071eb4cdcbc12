"""Why a plan has no latency: the kinds of failure, and the exception that names the plan."""

__all__ = ["FailureKind", "PlanFailure"]

from enum import StrEnum

from mla_tune.errors import MlaTuneError
from mla_tune.plan.plan import Plan


class FailureKind(StrEnum):
    """What went wrong with a plan, spelled as quarantine files, journals and recordings have it."""

    RAISED = "raised"
    TIMED_OUT = "timed out"
    DIED = "died"
    OUT_OF_MEMORY = "out of memory"
    WRONG_RESULT = "wrong result"
    NOT_APPLIED = "not applied"

    @property
    def is_quarantined(self) -> bool:
        """Whether trying such a plan again is a waste or a danger.

        A knob that did not reach the kernel is neither: the backend is as it was.
        """
        return self is not FailureKind.NOT_APPLIED


class PlanFailure(MlaTuneError):
    """One plan could not be measured or gave a wrong result. Data for the study, not a crash.

    Args:
        what: what happened.
        plan: the plan that it happened to.
        kind: what it is filed under.
        valid, remedy: as of `MlaTuneError`.
    """

    def __init__(
        self,
        what: str,
        *,
        plan: Plan,
        kind: FailureKind = FailureKind.RAISED,
        valid: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(what, valid=valid, remedy=remedy)
        self.plan = plan
        self.kind = kind

    def about(self, plan: Plan) -> "PlanFailure":
        """The same failure of ``plan``: a session names plans with the default's knobs filled in,
        whoever asked knows the plan as it was asked for.
        """
        return PlanFailure(
            self.what, plan=plan, kind=self.kind, valid=self.valid, remedy=self.remedy
        )
