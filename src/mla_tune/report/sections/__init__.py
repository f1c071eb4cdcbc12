"""The sections of a report, each in a file of its own, in the order of the page."""

__all__ = ["SECTIONS"]

from mla_tune.report.sections.crossover import crossover
from mla_tune.report.sections.failures import failures
from mla_tune.report.sections.gains import gains
from mla_tune.report.sections.histories import histories
from mla_tune.report.sections.latency import latency
from mla_tune.report.sections.noise import noise
from mla_tune.report.sections.overview import overview
from mla_tune.report.sections.prediction import prediction
from mla_tune.report.sections.rivals import rivals
from mla_tune.report.sections.split_counts import split_counts

SECTIONS = (
    overview,
    gains,
    latency,
    rivals,
    split_counts,
    crossover,
    prediction,
    noise,
    failures,
    histories,
)
