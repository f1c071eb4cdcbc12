"""A whole run: every backend, model, KV dtype and mode asked for, each into its own table."""

__all__ = ["Assignment", "Campaign", "Reporter", "table_path"]

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mla_tune.backends import canonical_name, get_backend
from mla_tune.backends.interface import Setup
from mla_tune.environment import Environment
from mla_tune.errors import InputError, MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.quarantine import Quarantine, Ward
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload
from mla_tune.shapes.file import ShapesFile
from mla_tune.study import Journal
from mla_tune.table import Entry, Header, TableFile, check_mergeable, merge
from mla_tune.tuner import Observer, Settings, Tuner
from mla_tune.worker import WorkerBench

MEMORY_SHARE = 0.92
"""Of the free memory a shape may fill; allocators and the CUDA context need the rest."""


@dataclass(frozen=True)
class Assignment:
    """One table's worth of work."""

    setup: Setup
    workloads: tuple[Workload, ...]
    header: Header
    path: Path


class Reporter(Observer, Protocol):
    """Who is told how the whole run goes."""

    def skipped(self, what: str) -> None: ...
    def assigned(self, assignments: Sequence[Assignment]) -> None: ...
    def started(self, assignment: Assignment, workload: Workload) -> None: ...
    def decided(self, assignment: Assignment, workload: Workload, entry: Entry) -> None: ...
    def failed(self, assignment: Assignment, workload: Workload, error: MlaTuneError) -> None: ...


@dataclass
class Campaign:
    """Everything a run needs besides the device.

    Args:
        backends: names as given; those of ``shapes`` where empty.
        shapes: what to tune for.
        out: folder of the tables.
        study_dir: folder of journals, quarantine and the worker's log.
        settings: how much to measure.
        reporter: who is told how it goes.
        replace: start a table anew where one is there that is true for something else.
    """

    backends: tuple[str, ...]
    shapes: ShapesFile
    out: Path
    study_dir: Path
    settings: Settings
    reporter: Reporter
    replace: bool = False
    failures: list[tuple[str, MlaTuneError]] = field(default_factory=list)

    def run(self, bench: WorkerBench) -> None:
        """Tune everything, writing each entry to its table as soon as it is decided.

        Raises:
            InputError: anything that can be known to be wrong before measuring.
            EnvironmentFailure: the machine, the disk or the device failed.
        """
        assignments = self.assignments(bench.environment, bench.device, bench.free_bytes())
        quarantine = Quarantine(self.study_dir / "quarantine.yaml")
        self.reporter.assigned(assignments)
        for assignment in assignments:
            self._tune(bench, assignment, quarantine)

    def assignments(
        self, environment: Environment, device: str, free_bytes: int
    ) -> list[Assignment]:
        """Work out and check all that is to be done, without touching the device.

        Raises:
            InputError: see `run`.
        """
        names = self._runnable(environment)
        _check_writable(self.out)
        shapes = self.shapes
        found = [
            self._assignment(environment, device, free_bytes, name, model, dtype, mode)
            for name in names
            for model in shapes.models
            for dtype in shapes.kv_cache_dtypes
            for mode in shapes.modes
        ]
        assignments = [assignment for assignment in found if assignment is not None]
        if not assignments:
            raise InputError(
                f"{shapes.path}: nothing to tune for {', '.join(names)} in the modes and KV cache "
                "dtypes asked for",
                remedy="'mla-tune backends' lists what each backend has",
            )
        for assignment in assignments:
            if assignment.path.exists() and not self.replace:
                old = TableFile.load(assignment.path)
                check_mergeable(assignment.path, old.header, assignment.header)
        return assignments

    def _runnable(self, environment: Environment) -> list[str]:
        """The backends to tune: all that were asked for, or those of the file that run here."""
        if self.backends:
            names = list(dict.fromkeys(canonical_name(name) for name in self.backends))
            for name in names:
                if reason := get_backend(name).unavailable(environment):
                    raise UnavailableError(
                        f"{name} {reason}", valid=f"available here: {_available(environment)}"
                    )
            return names
        names = []
        for listed in self.shapes.backends:
            try:
                name = canonical_name(listed)
                reason = get_backend(name).unavailable(environment)
            except InputError:
                name, reason = listed, "is not an MLA backend known here"
            if reason:
                self.reporter.skipped(f"{name}: skipped: {reason}")
            else:
                names.append(name)
        if not names:
            raise UnavailableError(
                f"no backend to tune: {self.shapes.path} lists "
                f"{', '.join(self.shapes.backends) or 'none'}",
                valid=f"available here: {_available(environment)}",
                remedy="name one with --backend",
            )
        return list(dict.fromkeys(names))

    def _assignment(
        self,
        environment: Environment,
        device: str,
        free_bytes: int,
        name: str,
        model: MlaDimensions,
        dtype: str,
        mode: str,
    ) -> Assignment | None:
        backend, shapes = get_backend(name), self.shapes
        if dtype not in backend.kv_cache_dtypes or mode not in backend.modes:
            wanted = f"KV cache dtype {dtype}" if dtype not in backend.kv_cache_dtypes else mode
            self.reporter.skipped(f"{name}: {wanted} skipped: the backend does not have it")
            return None
        cases = self._supported(name, mode)
        if not cases:
            return None
        setup = Setup(
            backend=name,
            model=model,
            kv_cache_dtype=dtype,
            mode=mode,
            max_model_len=shapes.max_model_len,
            max_num_requests=max(case.shape.num_requests for case in cases),
            max_num_query_tokens=max(case.shape.num_query_tokens for case in cases),
            index_topk=shapes.index_topk,
            device=device,
        )
        workloads = Workload.graph(cases) if mode == "graph" else Workload.eager(cases)
        for workload in workloads:
            _check_fits(setup, workload, free_bytes)
        header = Header.of(environment, name, model, dtype, mode, shapes.max_model_len)
        return Assignment(setup, tuple(workloads), header, table_path(self.out, header))

    def _supported(self, name: str, mode: str) -> list[Case]:
        backend = get_backend(name)
        cases = []
        reasons: dict[str, list[BatchShape]] = {}
        for case in self.shapes.cases:
            if reason := backend.supports(mode, case.shape):
                reasons.setdefault(reason, []).append(case.shape)
            else:
                cases.append(case)
        for reason, skipped in reasons.items():
            listed = ", ".join(map(str, skipped[:3])) + (", …" if len(skipped) > 3 else "")
            self.reporter.skipped(f"{name}, {mode}: {len(skipped)} skipped ({listed}): {reason}")
        return cases

    def _tune(self, bench: WorkerBench, assignment: Assignment, quarantine: Quarantine) -> None:
        previous = self._previous(assignment)
        environment, header = bench.environment, assignment.header
        name = f"{assignment.path.stem}.{environment.software_digest}.journal"
        journal = Journal(self.study_dir / name)
        ward = Ward(
            header.backend, header.device.name, header.model, header.kv_cache_dtype,
            header.engine.mode, environment.software, environment.software_digest,
        )  # fmt: skip
        tuner = Tuner(bench, journal, quarantine, ward, self.settings, self.reporter)
        try:
            bench.open(assignment.setup)
            for workload in assignment.workloads:
                self._tune_workload(tuner, assignment, workload, previous.get(str(workload)))
        except WorkloadFailure as error:
            # The session itself could not be built: the other assignments go on.
            self.failures.append((str(assignment.path), error))
            self.reporter.failed(assignment, assignment.workloads[0], error)
        finally:
            journal.close()

    def _tune_workload(
        self, tuner: Tuner, assignment: Assignment, workload: Workload, previous: Entry | None
    ) -> None:
        self.reporter.started(assignment, workload)
        try:
            entry = tuner.tune(workload, previous)
        except WorkloadFailure as error:
            self.failures.append((f"{assignment.setup.backend} {workload}", error))
            self.reporter.failed(assignment, workload, error)
            return
        merge(assignment.path, assignment.header, [entry])
        self.reporter.decided(assignment, workload, entry)

    def _previous(self, assignment: Assignment) -> dict[str, Entry]:
        """Last night's entries; with --replace a table that is true for something else ends."""
        if not assignment.path.exists():
            return {}
        old = TableFile.load(assignment.path)
        if self.replace and old.header.first_difference(assignment.header):
            assignment.path.rename(assignment.path.with_suffix(".yaml.replaced"))
        return {entry.shape: entry for entry in old.entries}


def table_path(folder: Path, header: Header) -> Path:
    """Where a table lives: its name holds all that tells it from other tables.

    Such as ``TRITON_MLA,NVIDIA_H200,heads=16,kv=auto,mode=graph,vllm=0.26.0.yaml``.
    """
    model = header.model
    dims = (model["kv_lora_rank"], model["qk_nope_head_dim"], model["qk_rope_head_dim"],
            model["v_head_dim"])  # fmt: skip
    parts = [header.backend, header.device.name, f"heads={model['num_q_heads']}"]
    if dims != (512, 128, 64, 128):
        parts.append("dims=" + "-".join(map(str, dims)))
    parts += [f"kv={header.kv_cache_dtype}", f"mode={header.engine.mode}"]
    if "vllm" in header.software and header.backend != "TORCH_MLA":
        parts.append(f"vllm={header.software['vllm']}")
    return folder / (re.sub(r"[^\w.,=+-]+", "_", ",".join(parts)) + ".yaml")


def _available(environment: Environment) -> str:
    from mla_tune.backends import NAMES

    names = [name for name in NAMES if get_backend(name).unavailable(environment) is None]
    return ", ".join(names) or "none"


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"output folder {folder} cannot be written: {error.strerror or error}",
            remedy="choose another with --out",
        ) from None


def _check_fits(setup: Setup, workload: Workload, free_bytes: int) -> None:
    backend = get_backend(setup.backend)
    needed = sum(backend.estimate_bytes(setup, case.shape) for case in workload.cases)
    if needed > MEMORY_SHARE * free_bytes:
        raise InputError(
            f"{setup.backend} {workload} needs about {needed / 2**30:.1f} GiB; "
            f"{free_bytes / 2**30:.1f} GiB are free on {setup.device}",
            remedy="leave the shape out, or cut the file down with --max-tokens",
        )
