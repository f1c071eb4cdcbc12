"""Batch shapes and model dimensions; the shapes file itself is read by `mla_tune.shapes.file`."""

__all__ = [
    "PRESETS",
    "BatchShape",
    "Case",
    "MlaDimensions",
    "RequestGroup",
    "Workload",
    "format_size",
    "parse_size",
]

from mla_tune.shapes.batch import BatchShape, RequestGroup, format_size, parse_size
from mla_tune.shapes.model import MlaDimensions
from mla_tune.shapes.presets import PRESETS
from mla_tune.shapes.workload import Case, Workload
