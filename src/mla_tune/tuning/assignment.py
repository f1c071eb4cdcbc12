"""What a run has to do: one assignment a table, all checked before anything is measured."""

__all__ = [
    "Assignment",
    "Planner",
    "check_output",
    "check_table",
    "recorded_assignments",
    "shipped_folder_notice",
    "table_path",
]

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mla_tune.environment import Environment
from mla_tune.errors import InputError, UnavailableError
from mla_tune.measuring.recording import Recording
from mla_tune.registry import BACKENDS, canonical_name, get_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload
from mla_tune.shapes.file import ShapesFile
from mla_tune.table import Header, TableFile, check_mergeable
from mla_tune.tuning.graph_cases import graph_cases, largest_capture

MEMORY_SHARE = 0.92
"""Of the free memory a shape may fill; allocators and the CUDA context need the rest."""


@dataclass(frozen=True)
class Assignment:
    """One table's worth of work."""

    setup: Setup
    workloads: tuple[Workload, ...]
    header: Header
    path: Path


@dataclass(frozen=True)
class Planner:
    """Works out the assignments for a device.

    Attributes:
        environment, device, free_bytes: where the run would measure.
        shapes: what to tune for.
        out: folder of the tables.
        skipped: told of everything that is left out, and why.
    """

    environment: Environment
    device: str
    free_bytes: int
    shapes: ShapesFile
    out: Path
    skipped: Callable[[str], None]

    def assignments(self, backends: Sequence[str]) -> list[Assignment]:
        """Everything to be done for ``backends``, or for those the shapes file lists.

        Raises:
            InputError: unknown or unavailable backend, nothing to do, or a shape that does not
                fit in memory.
        """
        names = self._asked_for(backends) if backends else self._listed()
        found = [
            self._assignment(name, model, dtype, mode)
            for name in names
            for model in self.shapes.models
            for dtype in self.shapes.kv_cache_dtypes
            for mode in self.shapes.modes
        ]
        assignments = [assignment for assignment in found if assignment is not None]
        if not assignments:
            raise InputError(
                f"{self.shapes.path}: nothing to tune for {', '.join(names)} in the modes and KV "
                "cache dtypes asked for",
                remedy="'mla-tune backends' lists what each backend has",
            )
        return assignments

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

    def _assignment(
        self, name: str, model: MlaDimensions, dtype: str, mode: str
    ) -> Assignment | None:
        backend, shapes = get_backend(name), self.shapes
        for wanted, known in ((dtype, backend.kv_cache_dtypes), (mode, backend.modes)):
            if wanted not in known:
                self.skipped(f"{name}: {wanted} skipped: it has {', '.join(known)}")
                return None
        if shapes.quantization not in backend.quantizations:
            self.skipped(f"{name}: skipped: it has no weights quantized as {shapes.quantization}")
            return None
        blocks, block_size = backend.blocks, shapes.block_size
        if block_size is not None and blocks is not None and block_size not in blocks:
            self.skipped(f"{name}: skipped: block size {block_size}, it takes {blocks}")
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
            device=self.device,
            quantization=shapes.quantization,
            block_size=shapes.block_size if blocks is not None else None,
            max_cudagraph_capture_size=largest_capture(shapes, self.environment)
            if backend.is_vllm
            else None,
        )
        workloads = Workload.graph(cases) if mode == "graph" else Workload.eager(cases)
        for workload in workloads:
            self._check_fits(setup, workload)
        header = _header(self.environment, setup)
        return Assignment(setup, tuple(workloads), header, table_path(self.out, header))

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

    def _check_fits(self, setup: Setup, workload: Workload) -> None:
        backend = get_backend(setup.backend)
        needed = sum(backend.estimate_bytes(setup, shape) for shape in workload.shapes)
        if needed > MEMORY_SHARE * self.free_bytes:
            raise InputError(
                f"{self.shapes.path}: {setup.backend} {workload} needs about "
                f"{needed / 2**30:.1f} GiB; {self.free_bytes / 2**30:.1f} GiB are free on "
                f"{setup.device}",
                remedy="leave the shape out, or cut the file down with --max-tokens",
            )


def recorded_assignments(recording: Recording, out: Path) -> list[Assignment]:
    """The assignments that a recording can answer for.

    Raises:
        InputError: it is of something that no table can be for.
    """
    workloads: dict[Setup, list[Workload]] = {}
    for track in recording.tracks:
        workloads.setdefault(track.setup, []).append(track.workload)
    assignments = []
    for setup, recorded in workloads.items():
        try:
            header = _header(recording.environment, setup)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            key = ".".join(map(str, detail["loc"]))
            problem = detail["msg"].removeprefix("Value error, ")
            raise InputError(f"recording {recording.path}: {key}: {problem}") from None
        assignments.append(Assignment(setup, tuple(recorded), header, table_path(out, header)))
    _refuse_outside(recording, assignments)
    return assignments


def _refuse_outside(recording: Recording, assignments: list[Assignment]) -> None:
    """Refuse plans that no table may hold, before one of them wins."""
    headers = {assignment.setup: assignment.header for assignment in assignments}
    for track in recording.tracks:
        for plan in track.plans:
            for knob, valid in headers[track.setup].outside(plan):
                raise InputError(
                    f"recording {recording.path}: {track.workload}: {knob} is "
                    f"{plan[knob]!r}, which {track.setup.backend} has not",
                    valid=valid,
                )


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


def table_path(folder: Path, header: Header) -> Path:
    """Where a table lives: its name holds all that tells it from other tables.

    Such as ``TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26.0.yaml``: a name that may
    also be a key of a Kubernetes ConfigMap, which allows letters, digits and ``-._`` only.
    """
    model = header.model
    dims = [model[name] for name in MlaDimensions.__dataclass_fields__ if name != "num_q_heads"]
    parts = [header.backend, header.device.name, f"heads_{model['num_q_heads']}"]
    if dims != [512, 128, 64, 128]:
        parts.append("_".join(map(str, ("dims", *dims))))
    parts += [f"kv_{header.kv_cache_dtype}", header.engine.mode, *_unusual(header)]
    if header.device.locked_sm_clock_mhz is not None:
        parts.append(f"clock_{header.device.locked_sm_clock_mhz}")
    if "vllm" in header.software and BACKENDS[header.backend].is_vllm:
        parts.append(f"vllm_{header.software['vllm']}")
    return folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts)) + ".yaml")


def _unusual(header: Header) -> list[str]:
    """What tells a table from that of an engine with vLLM's own settings."""
    words = {"quantization": "", "block_size": "block_", "max_cudagraph_capture_size": "capture_"}
    return [f"{words[name]}{value}" for name, value in header.own_settings.items()]


def shipped_folder_notice(folder: Path) -> str | None:
    """What to say to someone whose tables are about to stand among those that this project ships.

    The default ``--out`` is right in a deployment's repository, and wrong in a clone of this one.
    """
    folder = folder.resolve()
    for root in (folder, *folder.parents):
        own = (root / "tuned_configs", root / "src")
        if (root / "src" / "mla_tune" / "__init__.py").is_file() and any(
            folder.is_relative_to(path) for path in own
        ):
            return (
                f"{folder} is this project's own folder: what a run writes there stands among the "
                "tables that it ships; name another with --out, such as --out build/tables"
            )
    return None


def check_output(folder: Path) -> None:
    """Make sure that tables can be written to ``folder``, before anything is measured.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"output folder {folder} cannot be written: {error.strerror or error}",
            remedy="choose another with --out",
        ) from None


def check_table(assignment: Assignment) -> None:
    """Make sure that an assignment's entries can be merged into the table that is there.

    Raises:
        InputError: it cannot be read, or is true for something else.
    """
    if os.path.lexists(assignment.path):
        old = TableFile.load(assignment.path)
        check_mergeable(assignment.path, old.header, assignment.header)
