"""What a backend of vLLM is: one object, made in its file below `mla_tune.vllm.backends`.

It holds all that tells one backend from another, as plain values and functions. Knowing it imports
neither vLLM nor torch.
"""

__all__ = [
    "DENSE_BOUNDS",
    "EngineSetting",
    "FrozenSplits",
    "Splits",
    "VllmBackend",
]

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mla_tune.environment import Environment, described
from mla_tune.errors import UnavailableError
from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import THRESHOLDS, Bounds, Names
from mla_tune.plan.knob import KNOBS, Knob
from mla_tune.plan.plan import Plan
from mla_tune.quantization import QUANTIZATIONS
from mla_tune.session import Session, Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat, memory
from mla_tune.vllm.compat import graphs
from mla_tune.vllm.digests import Part, digests_of
from mla_tune.vllm.prefill import PREFILL_BACKENDS, PREFILL_PARTS, packages_of
from mla_tune.vllm.session.kernel_knob import KernelKnob, Launcher

DENSE_DTYPES = ("auto", "bfloat16", "fp8", "fp8_e4m3")
DENSE_BOUNDS: Mapping[str, Bounds] = {
    "reorder_batch_threshold": THRESHOLDS,
    "prefill_backend": Names(tuple(PREFILL_BACKENDS)),
}
# Decode blocks of speculative decoding have 1 + k tokens; longer queries are chunks of prompts,
# which vLLM never captures.
LONGEST_CAPTURED_QUERY = 16


@dataclass(frozen=True)
class EngineSetting:
    """How one value of a knob is given to a whole engine.

    Attributes:
        spelled: with ``{}`` for the value, such as ``FORCE_NUM_KV_SPLITS={}``.
        is_variable: whether it is a variable of the environment and not a flag.
        modes: those that it acts in.
    """

    spelled: str
    is_variable: bool = False
    modes: tuple[str, ...] = ("eager", "graph")


@dataclass(frozen=True)
class FrozenSplits:
    """Splits of a graph table, and an engine whose decode graphs may freeze them.

    Attributes:
        splits: of an entry's plan.
        measured_max_model_len: what the table's graphs were captured with.
        max_model_len: what the engine's graphs are captured with.
        sm_count: streaming multiprocessors of the engine's GPU.
    """

    splits: int
    measured_max_model_len: int
    max_model_len: int
    sm_count: int


def _never(frozen: FrozenSplits) -> bool:
    del frozen
    return False


def _one_kernel(setup: Setup) -> bool:
    del setup
    return False


def _no_launcher(setup: Setup) -> None:
    del setup


KernelKnobOf = Callable[[Setup, Any, Any], KernelKnob[Any] | None]
"""How a session sets a knob of the decode kernel, from the setup, vLLM's impl and its builder.

None where the installed release does not have it.
"""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What ``num_kv_splits`` is for one backend, beside its bounds.

    Attributes:
        knob: how a session sets it.
        partial_bytes: the partial results of a batch at its worst plan.
        own_partials: whether every batch has its own; if not, they share a workspace.
        carry_over: whether splits that beat a table's frozen default also beat the one that an
            engine freezes. What a decode graph freezes by default depends on the engine, in a way
            of its own in each backend.
        follow_capture_size: whether eager plans depend on max_cudagraph_capture_size.
        cut: by which of `mla_tune.plan.cut.CUTTERS` the decode kernel cuts a batch; None: by one
            that is not known, and no table says anything between its entries.
    """

    knob: KernelKnobOf
    partial_bytes: Callable[[Setup, BatchShape], int] = memory.no_splits
    own_partials: bool = False
    carry_over: Callable[[FrozenSplits], bool] = _never
    follow_capture_size: bool = False
    cut: str | None = None


@dataclass(frozen=True, kw_only=True)
class VllmBackend:
    """One of vLLM's MLA backends.

    Attributes:
        name: vLLM's.
        aliases: its names in vLLM's attention benchmark.
        module: its file below ``vllm/v1/attention/backends/mla/``, without the suffix.
        blocks: tokens in a block of its KV cache.
        majors: compute capabilities (major) that its kernels exist for; empty for all.
        interpreted: whether its kernels run on a CPU in Triton's interpreter.
        extension: a file (with wildcards, below the package ``vllm``) or the name of a package
            that its kernels are in; empty for none.
        package: what the decode kernels come with, where that is not vLLM's own wheel and not
            pinned exactly by it.
        decode_parts: what of an installation decides how fast its decode path is.
        prefill_parts: the same of its prefill path, for plans that weigh one against the other.
        sparse: whether it attends to the top-k tokens that an indexer picked.
        captured_since: the release from which on its decode steps are replayed from CUDA graphs.
        uniform_since: the release from which on its decode path takes more than one query token
            a request; None: none does.
        bounds: of the knobs it has, by name.
        settings: how knobs are given to a whole engine, where vLLM can be told at all.
        splits: of ``num_kv_splits``, if it has that knob.
        other_knobs: how a session sets the other knobs of its decode kernel, by name.
        launcher: what sets the launch constants of its decode kernel for a setup, if it has them;
            None where the installed release has other ones.
        parts_prefills: of a sparse backend, whether the kernel treats decode and prefill tokens
            apart even when all take the sparse path.
        plugin_class: the path of the class that applies its plans in an engine; None where tables
            do not act.
    """

    name: str
    aliases: tuple[str, ...]
    module: str
    blocks: BlockSizes
    majors: tuple[int, ...] = ()
    interpreted: bool = False
    kv_cache_dtypes: tuple[str, ...] = DENSE_DTYPES
    extension: str = ""
    package: str | None = None
    decode_parts: tuple[Part, ...] = ()
    prefill_parts: tuple[Part, ...] = PREFILL_PARTS
    sparse: bool = False
    captured_since: tuple[int, ...] = ()
    uniform_since: tuple[int, ...] | None = ()
    bounds: Mapping[str, Bounds] = field(default_factory=lambda: DENSE_BOUNDS)
    settings: Mapping[str, EngineSetting] = field(default_factory=dict)
    splits: Splits | None = None
    other_knobs: Mapping[str, KernelKnobOf] = field(default_factory=dict)
    launcher: Callable[[Setup], Launcher | None] = _no_launcher
    parts_prefills: Callable[[Setup], bool] = _one_kernel
    plugin_class: str | None = None

    @property
    def is_vllm(self) -> bool:
        return True

    @property
    def quantizations(self) -> tuple[str, ...]:
        """Of ``kv_b_proj``; a session says what the release and the GPU cannot."""
        return QUANTIZATIONS

    @property
    def modes(self) -> tuple[str, ...]:
        """Where it runs in production: captured decode and eager batches, or only the latter."""
        return ("eager", "graph") if compat.since(self.captured_since) else ("eager",)

    @property
    def decodes_uniform(self) -> bool:
        """Whether its decode path takes more than one query token a request, in this release."""
        return self.uniform_since is not None and compat.since(self.uniform_since)

    @property
    def knobs(self) -> tuple[str, ...]:
        """The knobs it has in the installed release."""
        fixed = () if self.decodes_uniform else ("reorder_batch_threshold",)
        return tuple(knob for knob in KNOBS if knob in self.bounds and knob not in fixed)

    @property
    def cut(self) -> str | None:
        """As `Splits.cut`."""
        return self.splits.cut if self.splits is not None else None

    def setting(self, knob: Knob) -> EngineSetting | None:
        """How ``knob`` is given to a whole engine; None where vLLM has no flag for it."""
        usual = EngineSetting(knob.vllm_flag) if knob.vllm_flag else None
        return self.settings.get(knob.name, usual)

    def packages(self, plans: Iterable[Plan]) -> set[str]:
        """The packages beside vLLM whose version decides what ``plans`` are worth."""
        prefills = {name for plan in plans if (name := plan.text("prefill_backend"))}
        return packages_of(prefills) | ({self.package} if self.package else set())

    def decided_by(self, mode: str) -> tuple[str, ...]:
        """As `mla_tune.session.Backend.decided_by`: a full graph holds decodes alone."""
        parts = self.decode_parts + (self.prefill_parts if mode == "eager" else ())
        return tuple(dict.fromkeys(part.name for part in parts))

    def digests(self) -> dict[str, str]:
        """As `mla_tune.session.Backend.digests`."""
        return digests_of((*self.decode_parts, *self.prefill_parts))

    def follows_capture_size(self, mode: str) -> bool:
        """Whether plans of ``mode`` depend on the engine's max_cudagraph_capture_size."""
        return mode == "eager" and self.splits is not None and self.splits.follow_capture_size

    def unavailable(self, environment: Environment) -> str | None:
        if "vllm" not in environment.software:
            return "vLLM is not installed: pip install 'mla-tune[vllm]'"
        if reason := compat.supported_release():
            return reason
        if compat.backend_source(self.module) is None:
            return f"vLLM {environment.software['vllm']} has no backend {self.name}"
        return self._hardware_problem(environment) or self._extension_problem()

    def _hardware_problem(self, environment: Environment) -> str | None:
        if environment.is_hip:
            return f"needs an NVIDIA GPU, this is {environment.device_name} (HIP)"
        if not environment.is_cuda:
            if self.interpreted and os.environ.get("TRITON_INTERPRET") == "1":
                return None
            return f"needs a CUDA GPU, this is {environment.device_name}"
        major, minor = environment.capability
        if self.majors and major not in self.majors:
            needed = " or ".join(f"{number}.x" for number in self.majors)
            here = f"{major}.{minor} ({environment.device_name})"
            return f"needs compute capability {needed}, this is {here}"
        return None

    def _extension_problem(self) -> str | None:
        if not self.extension:
            return None
        if "*" not in self.extension:
            if importlib.util.find_spec(self.extension) is None:
                return f"the package {self.extension} is not installed"
            return None
        spec = importlib.util.find_spec("vllm")
        if spec is None or spec.origin is None:
            return None
        if not any(Path(spec.origin).parent.glob(self.extension)):
            return f"this build of vLLM lacks its extension {self.extension}"
        return None

    def supports(self, mode: str, shape: BatchShape, capture_size: int | None = None) -> str | None:
        """Why ``shape`` cannot be tuned in ``mode``, or None when it can.

        Any batch runs eagerly; captured are decode batches of one query length, and tuned for
        graphs are those of one KV length.
        """
        if mode not in self.modes:
            return f"{self.name} of this vLLM is not captured into CUDA graphs"
        if mode == "eager":
            return None
        if not shape.is_uniform:
            return "CUDA graphs are captured for one query length at a time"
        if len(shape.groups) > 1:
            # A replay is looked up by its graph's batch size, which says nothing of such lengths.
            return "a graph's entry is found by batch size, for requests of one KV length each"
        if shape.is_pure_prefill and shape.max_query_len > 1:
            return "a prefill without context is never captured"
        longest = LONGEST_CAPTURED_QUERY if self.decodes_uniform else 1
        if shape.max_query_len > longest:
            return f"CUDA graphs of {self.name} are captured up to query length {longest}"
        limit = capture_size
        if limit is None:
            limit = graphs.graph_capture_limit(self.majors[0] if len(self.majors) == 1 else 0)
        if shape.num_query_tokens > limit:
            return f"CUDA graphs are captured up to {limit} tokens"
        return None

    def estimate_bytes(self, setup: Setup, shapes: Sequence[BatchShape]) -> int:
        block_size, splits = setup.block_size or self.blocks.own, self.splits
        partials = [splits.partial_bytes(setup, shape) if splits else 0 for shape in shapes]
        shared = max(memory.cache_bytes(setup, shape, block_size) for shape in shapes) + max(
            memory.prefill_bytes(setup, shape, sparse=self.sparse) for shape in shapes
        )
        own = sum(
            memory.batch_bytes(setup, shape, block_size, sparse=self.sparse)
            + memory.absorbed_bytes(setup, shape)
            for shape in shapes
        )
        each_its_own = splits is not None and splits.own_partials
        return shared + own + (sum(partials) if each_its_own else max(partials))

    def open(self, setup: Setup) -> Session:
        if reason := self.unavailable(described(setup.device)):
            raise UnavailableError(f"{self.name}: {reason}")
        if setup.kv_cache_dtype not in self.kv_cache_dtypes:
            raise UnavailableError(
                f"{self.name} has no KV cache of dtype {setup.kv_cache_dtype!r}",
                valid=", ".join(self.kv_cache_dtypes),
            )
        from mla_tune.vllm.session.ahead import AheadCompiler
        from mla_tune.vllm.session.parts import build_parts
        from mla_tune.vllm.session.session import VllmSession

        compiler = AheadCompiler()
        # Beside the imports of this process, which are still to come, it costs no time. Where they
        # are done it is another process of the run, which finds all kernels compiled.
        if self._compiles(setup) and "vllm.config" not in sys.modules:
            compiler.start()
        try:
            return VllmSession(setup, build_parts(setup, self), compiler)
        except BaseException:
            compiler.close()
            raise

    def _compiles(self, setup: Setup) -> bool:
        return self.launcher is not _no_launcher and setup.device != "cpu"

    def kernel_knobs(self, setup: Setup, impl: Any, builder: Any) -> dict[str, KernelKnob[Any]]:
        """How a session of ``setup`` sets what reaches the decode kernel, by knob."""
        splits = {"num_kv_splits": self.splits.knob} if self.splits else {}
        found = {**splits, **self.other_knobs}
        knobs = {name: knob_of(setup, impl, builder) for name, knob_of in found.items()}
        return {name: knob for name, knob in knobs.items() if knob is not None}
