"""The few workloads of a table on which something is tried for all of them."""

__all__ = ["representatives"]

from collections.abc import Sequence

from mla_tune.shapes import Workload


def representatives(workloads: Sequence[Workload], most: int = 3) -> list[Workload]:
    """At most ``most`` of ``workloads``, each in the middle of its share of what is served.

    In the order of their rows (query tokens), the workloads are cut into ``most`` parts of equal
    weight; the one in the middle of its part stands for it. The smallest and the largest batch
    themselves would stand for little: a few kernels' launches wait for nothing there, or fill the
    GPU whatever their launch is.

    Returns:
        The one in the middle first, then outwards; fewer where one stands for several parts.
    """
    ordered = sorted(workloads, key=lambda workload: workload.rows)
    total = sum(map(_weight, ordered))
    marks = [total * (2 * part + 1) / (2 * most) for part in range(most)]
    marks.sort(key=lambda mark: abs(mark - total / 2))
    return list(dict.fromkeys(_at(ordered, mark) for mark in marks)) if ordered else []


def _at(ordered: Sequence[Workload], mark: float) -> Workload:
    """The workload at which the weights of ``ordered`` add up to ``mark``."""
    passed = 0.0
    for workload in ordered:
        passed += _weight(workload)
        if passed >= mark:
            return workload
    return ordered[-1]


def _weight(workload: Workload) -> float:
    return sum(case.weight for case in workload.cases)
