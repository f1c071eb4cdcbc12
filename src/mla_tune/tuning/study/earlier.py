"""Studies of versions whose trials had one parameter, the position of a plan in its space."""

__all__ = ["take_over"]

import optuna

from mla_tune.tuning.study.ledger import Ledger
from mla_tune.tuning.study.outcome import outcome_of

TAKEN_OVER = "goes on from"


def take_over(earlier: optuna.Study, study: optuna.Study, ledger: Ledger) -> None:
    """Copy what ``earlier`` has into ``study``, whose parameters are the knobs.

    After a kill in the middle it goes on. The earlier study stays as it is.

    Args:
        earlier: of the same workload and plans.
        study: to add to.
        ledger: of ``study``.
    """
    if TAKEN_OVER in study.user_attrs:
        return
    known = {outcome.plan for outcome in ledger.outcomes()}
    for trial in earlier.get_trials(deepcopy=False):
        outcome = outcome_of(trial)
        if outcome is not None and outcome.plan not in known:
            ledger.tell(outcome)
    for name, value in earlier.user_attrs.items():
        if name not in study.user_attrs:
            study.set_user_attr(name, value)
    study.set_user_attr(TAKEN_OVER, earlier.study_name)
