"""A table job: the work for one table."""

__all__ = ["TableJob"]

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.registry import BACKENDS
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload
from mla_tune.table import Header
from mla_tune.table.naming import table_path


@dataclass(frozen=True)
class TableJob:
    """What is to be tuned for one table.

    Attributes:
        setup: what the session is built for.
        workloads: what to decide, in the order of the table.
        header: what the table's entries will be true for.
        path: the table's file.
    """

    setup: Setup
    workloads: tuple[Workload, ...]
    header: Header
    path: Path

    @classmethod
    def of(
        cls, environment: Environment, setup: Setup, workloads: Iterable[Workload], folder: Path
    ) -> "TableJob":
        """The job of tuning ``workloads`` in ``environment``, for a table in ``folder``.

        Raises:
            ValidationError: no table can be for such a setup.
        """
        header = _header(environment, setup)
        return cls(setup, tuple(workloads), header, table_path(folder, header))

    def only(self, wanted: Collection[BatchShape]) -> "TableJob":
        """Keep the workloads that have a shape among ``wanted``."""
        kept = tuple(w for w in self.workloads if not set(w.shapes).isdisjoint(wanted))
        return replace(self, workloads=kept)


def _header(environment: Environment, setup: Setup) -> Header:
    # A recording may name a backend that is not known here, which the header refuses.
    sparse = setup.backend in BACKENDS and BACKENDS[setup.backend].sparse
    return Header.of(
        environment,
        *(setup.backend, setup.model, setup.kv_cache_dtype, setup.mode, setup.max_model_len),
        index_topk=setup.index_topk if sparse else None,
        quantization=setup.quantization,
        block_size=setup.block_size,
        max_cudagraph_capture_size=setup.max_cudagraph_capture_size,
    )
