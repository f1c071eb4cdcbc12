"""What a run has to do: one job a table, all checked before anything is measured."""

__all__ = ["Planner"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.errors import InputError, UnavailableError
from mla_tune.plan.launch import LAUNCH_KNOBS
from mla_tune.registry import BACKENDS, canonical_name, get_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload
from mla_tune.shapes.file import ShapesFile
from mla_tune.traffic.served_lengths import ServedLengths
from mla_tune.tuning.graph_cases import graph_cases, largest_capture
from mla_tune.tuning.graph_guards import GraphGuards
from mla_tune.tuning.guards import Fits
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.launches import launches_in

MEMORY_SHARE = 0.92
"""Of the free memory a shape may fill; allocators and the CUDA context need the rest."""

GUARDS_SHARE = 0.8
"""Of the free memory that guards may fill beside it: as much as an engine, with its weights, can
give to its KV cache. They must not be what a run fails on."""


@dataclass(frozen=True)
class Planner:
    """Works out the table jobs for a device.

    Attributes:
        environment, device, free_bytes: where the run would measure.
        shapes: what to tune for.
        out: folder of the tables.
        skipped: told of everything that is left out, and why.
        launches: as `launches_in` takes it.
        served: what bounds the guards of graphs beside the engine; None: nothing does.
    """

    environment: Environment
    device: str
    free_bytes: int
    shapes: ShapesFile
    out: Path
    skipped: Callable[[str], None]
    launches: str | None = None
    served: ServedLengths | None = None

    def jobs(self, backends: Sequence[str]) -> list[TableJob]:
        """Everything to be done for ``backends``, or for those the shapes file lists.

        Raises:
            InputError: unknown or unavailable backend, nothing to do, or a shape that does not
                fit in memory.
        """
        names = self._asked_for(backends) if backends else self._listed()
        found = [
            self._job(name, model, dtype, mode)
            for name in names
            for model in self.shapes.models
            for dtype in self.shapes.kv_cache_dtypes
            for mode in self.shapes.modes
        ]
        jobs = [job for job in found if job is not None]
        if not jobs:
            raise InputError(
                f"{self.shapes.path}: nothing to tune for {', '.join(names)} in the modes and KV "
                "cache dtypes asked for",
                remedy="'mla-tune backends' lists what each backend has",
            )
        return jobs

    def _asked_for(self, backends: Sequence[str]) -> list[str]:
        """Names from the command line: each has to run here."""
        try:
            names = list(dict.fromkeys(canonical_name(name) for name in backends))
        except InputError as error:
            valid = f"{error.valid}; of these run here: {self._here()}"
            raise InputError(error.what, valid=valid, remedy=error.remedy) from None
        for name in names:
            if reason := get_backend(name).unavailable(self.environment):
                raise UnavailableError(f"{name} {reason}", valid=f"available here: {self._here()}")
        return names

    def _listed(self) -> list[str]:
        """Names from the shapes file: those that run here, the others named and skipped."""
        names = []
        for listed in self.shapes.backends:
            try:
                name = canonical_name(listed)
                reason = get_backend(name).unavailable(self.environment)
            except InputError:
                name, reason = listed, "is not an MLA backend known here"
            if reason:
                self.skipped(f"{name}: skipped: {reason}")
            else:
                names.append(name)
        if not names:
            listed = ", ".join(self.shapes.backends) or "none"
            raise UnavailableError(
                f"no backend to tune: {self.shapes.path} lists {listed}",
                valid=f"available here: {self._here()}",
                remedy="name one with --backend",
            )
        return list(dict.fromkeys(names))

    def _here(self) -> str:
        names = [b.name for b in BACKENDS if b.unavailable(self.environment) is None]
        return ", ".join(names) or "none"

    def _job(self, name: str, model: MlaDimensions, dtype: str, mode: str) -> TableJob | None:
        """The work for one table; None where there is none, with the reason told."""
        if reason := self._lack(name, dtype, mode):
            self.skipped(f"{name}: {reason}")
            return None
        cases = self._supported(name, mode)
        if not cases:
            return None
        setup = self._setup(name, model, dtype, mode, cases)
        workloads = Workload.graph(cases) if mode == "graph" else Workload.eager(cases)
        for workload in workloads:
            self._check_fits(setup, workload)
        if mode == "graph":
            workloads = self._guarded(setup, workloads)
        return TableJob.of(self.environment, setup, workloads, self.out)

    def _lack(self, name: str, dtype: str, mode: str) -> str | None:
        """What is asked for and the backend does not have, in words."""
        backend, shapes = get_backend(name), self.shapes
        for wanted, known in ((dtype, backend.kv_cache_dtypes), (mode, backend.modes)):
            if wanted not in known:
                return f"{wanted} skipped: it has {', '.join(known)}"
        if shapes.quantization not in backend.quantizations:
            return f"skipped: it has no weights quantized as {shapes.quantization}"
        blocks, block_size = backend.blocks, shapes.block_size
        if block_size is not None and blocks is not None and block_size not in blocks:
            return f"skipped: block size {block_size}, it takes {blocks}"
        return None

    def _setup(
        self, name: str, model: MlaDimensions, dtype: str, mode: str, cases: Sequence[Case]
    ) -> Setup:
        backend, shapes = get_backend(name), self.shapes
        return Setup(
            backend=name,
            model=model,
            kv_cache_dtype=dtype,
            mode=mode,
            max_model_len=shapes.max_model_len,
            max_num_requests=max(case.shape.num_requests for case in cases),
            max_num_query_tokens=max(case.shape.num_query_tokens for case in cases),
            index_topk=shapes.index_topk,
            device=self.device,
            quantization=shapes.quantization,
            block_size=shapes.block_size if backend.blocks is not None else None,
            max_cudagraph_capture_size=largest_capture(shapes, self.environment)
            if backend.is_vllm
            else None,
            launches=launches_in(mode, self.launches) != "none"
            and not set(LAUNCH_KNOBS).isdisjoint(backend.knobs),
        )

    def _supported(self, name: str, mode: str) -> list[Case]:
        backend, shapes = get_backend(name), self.shapes
        capture_size = largest_capture(shapes, self.environment)
        wanted = graph_cases(shapes, self.environment) if mode == "graph" else shapes.cases
        cases = []
        reasons: dict[str, list[BatchShape]] = {}
        for case in wanted:
            if reason := backend.supports(mode, case.shape, capture_size):
                reasons.setdefault(reason, []).append(case.shape)
            else:
                cases.append(case)
        for reason, left_out in reasons.items():
            listed = ", ".join(map(str, left_out[:3])) + (", …" if len(left_out) > 3 else "")
            self.skipped(f"{name}, {mode}: {len(left_out)} skipped ({listed}): {reason}")
        return cases

    def _guarded(self, setup: Setup, workloads: Sequence[Workload]) -> list[Workload]:
        """Graphs' workloads with the guards and ragged batches that this GPU can hold."""
        served = self.served
        if served is not None and not served.is_of(setup.model):
            self.skipped(
                f"{setup.backend}, graph, {setup.model.num_q_heads} heads: the record "
                f"{served.path} is of another model; guarded as by --guard longest"
            )
            served = None
        guards = GraphGuards(setup.backend, self.shapes, self._fits(setup), served, self.skipped)
        return guards.around(workloads)

    def _fits(self, setup: Setup) -> Fits:
        """Whether shapes fit in the memory that is left to guards."""
        backend, most = get_backend(setup.backend), GUARDS_SHARE * self.free_bytes
        return lambda shapes: backend.estimate_bytes(setup, shapes) <= most

    def _check_fits(self, setup: Setup, workload: Workload) -> None:
        backend = get_backend(setup.backend)
        needed = backend.estimate_bytes(setup, workload.shapes)
        if needed > MEMORY_SHARE * self.free_bytes:
            raise InputError(
                f"{self.shapes.path}: {setup.backend} {workload} needs about "
                f"{needed / 2**30:.1f} GiB; {self.free_bytes / 2**30:.1f} GiB are free on "
                f"{setup.device}",
                remedy="leave the shape out, or cut the file down with --max-tokens",
            )
