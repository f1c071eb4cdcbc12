"""The KV lengths of a step from vLLM's array; apart, since reading a table does without numpy."""

__all__ = ["lengths_in"]

from typing import Any

import numpy as np

from mla_tune.shapes.lengths import Lengths


def lengths_in(lens: Any) -> Lengths:
    """Of a numpy array with a KV length a row; rows of length 0 pad a graph."""
    # Its ufuncs: half the cost of the array's methods, and this is done within a step.
    return Lengths(
        int(np.count_nonzero(lens)), int(np.add.reduce(lens)), int(np.maximum.reduce(lens))
    )
