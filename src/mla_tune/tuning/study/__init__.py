"""Studies: what Optuna keeps of each workload, and which plan it has tried next."""

__all__ = ["LAUNCHES_OF", "Journal", "Ledger", "Outcome", "Policy", "Subject"]

from mla_tune.tuning.study.journal import LAUNCHES_OF, Journal
from mla_tune.tuning.study.ledger import Ledger
from mla_tune.tuning.study.outcome import Outcome
from mla_tune.tuning.study.policy import Policy
from mla_tune.tuning.study.subject import Subject
