"""What the figures of the documents are worked out from: the tables that a wheel holds."""

from functools import cached_property

from coverage_document import gpu_of, shipped_paths
from gains_picture import Curve
from mla_tune.catalogue.contest import Contest, contests
from mla_tune.catalogue.found import FoundTable, found_tables
from mla_tune.shapes import Workload
from mla_tune.table import Table

SHOWN_GPU, SHOWN_BACKEND, SHOWN_HEADS = "H100 80GB HBM3", "TRITON_MLA", (16, 128)
SHOWN_KV_LEN = 4096
HOPPER = "9.0"


class Material:
    """Tables read once, and what several blocks need of them."""

    @cached_property
    def found(self) -> list[FoundTable]:
        return found_tables(shipped_paths())[0]

    @cached_property
    def tables(self) -> list[Table]:
        return [each.table() for each in self.found]

    @cached_property
    def contests(self) -> list[Contest]:
        """Dense backends beside each other on Hopper under graphs, by GPU and heads."""
        graphs = [
            each
            for each in self.found
            if (header := each.file.header).engine.mode == "graph"
            and header.engine.index_topk is None
            and header.device.compute_capability == HOPPER
        ]
        return sorted(contests(graphs), key=lambda each: (each.ground.gpu, each.ground.num_q_heads))

    @cached_property
    def shown(self) -> list[Table]:
        """The tables that the picture is of: of those for the longest context the largest."""
        alike = [
            table
            for table in self.tables
            if table.header.engine.mode == "graph"
            and (gpu_of(table), table.header.backend) == (SHOWN_GPU, SHOWN_BACKEND)
        ]
        return [
            max(
                (each for each in alike if each.header.model["num_q_heads"] == heads),
                key=lambda table: (table.header.engine.max_model_len, len(table.entries)),
            )
            for heads in SHOWN_HEADS
        ]

    @cached_property
    def curves(self) -> list[Curve]:
        return list(map(_curve, self.shown))


def _curve(table: Table) -> Curve:
    """Uniform batches at one KV length; an entry that keeps the default has no figures of it."""
    points = [
        (Workload.parse(entry.shape).shapes[0].groups[0].count, case.default_us, case.latency_us)
        for entry in table.entries
        for case in entry.cases
        if case.kv_len == SHOWN_KV_LEN and case.shape is None
    ]
    requests, default_us, tuned_us = zip(*sorted(points), strict=True)
    return Curve(table.header.model["num_q_heads"], requests, default_us, tuned_us)
