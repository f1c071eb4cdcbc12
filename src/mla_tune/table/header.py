"""The header of a table: the device, model, engine and software that its entries were measured for.

Schema versions:
    1  first shipped; header, entries with plan, ties, latency, speed-up and per-length cases.
    2  the header names the weights' quantization, and engine the KV cache's block size and
       max_cudagraph_capture_size. What version 1 left out was: weights that are not quantized,
       the block size that vLLM chooses for the backend, and the capture size that it takes with
       256 sequences or more. A table is read so wherever it leaves one of these out.
       Device may name a locked SM clock (left out: none is known) and what was unwatched.
       An entry may say over how many processes its interval is (left out: rounds of one).
    3  an eager table may have a section ``between``: a model that answers between its entries,
       see `mla_tune.table.between`.
    4  ``software_digests``: what of the software decides how fast the backend is, by name; see
       `mla_tune.table.software`. Left out: versions alone say whether a table is true.
    5  an entry may have ``served``: its guards end where nearly all of what was served does, and
       not where the engine does; see `mla_tune.shapes.served_reach.ServedReach`.
"""

__all__ = [
    "SCHEMA_VERSION",
    "WITHOUT_BETWEEN",
    "WITH_BETWEEN",
    "WITH_SERVED",
    "Device",
    "EngineSettings",
    "Header",
]

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
)

from mla_tune.environment import Environment
from mla_tune.plan.bounds import outside
from mla_tune.plan.plan import Plan
from mla_tune.quantization import UNQUANTIZED
from mla_tune.registry import BACKENDS
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm.compat.graphs import default_capture_size

SCHEMA_VERSION = 5

WITHOUT_BETWEEN = 2
"""What is written while a table has neither: readers of version 2 can have it too."""
WITH_BETWEEN = 3
"""What is written of a table with that section and without digests."""
WITH_DIGESTS = 4
"""What is written of a table with digests."""
WITH_SERVED = 5
"""What is written of a table with an entry that was guarded by what was served."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# Far beyond any engine; kernels count tokens in 32 bits.
TokenCount = Annotated[int, Field(ge=1, le=2**31 - 1)]
Dimension = Annotated[int, Field(ge=0, le=65536)]


def _known_backend(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r} is not known here; valid: {', '.join(BACKENDS.names)}")
    return name


def _all_dimensions(model: dict[str, int]) -> dict[str, int]:
    names = list(MlaDimensions.__dataclass_fields__)
    if set(model) != set(names):
        raise ValueError(f"it gives {', '.join(model) or 'nothing'}; needed: {', '.join(names)}")
    for name, value in model.items():
        # A model may be without rotary positions.
        if value == 0 and name != "qk_rope_head_dim":
            raise ValueError(f"{name} is 0; valid: 1 to 65536")
    return model


KnownBackend = Annotated[str, AfterValidator(_known_backend)]
ModelDimensions = Annotated[dict[str, Dimension], AfterValidator(_all_dimensions)]


class Device(_Section):
    """The device a table was measured on.

    ``compute_capability`` is absent for a CPU. ``locked_sm_clock_mhz`` is there where the GPU's SM
    clock was locked below its maximum. ``unwatched`` says what the driver would not tell while the
    table was begun, such as its clocks; entries are true without it.
    """

    name: str
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,2}$")] | None = None
    sm_count: Annotated[int, Field(ge=1, le=65536)]
    locked_sm_clock_mhz: Annotated[int, Field(ge=1, le=100_000)] | None = None
    unwatched: str | None = None


class EngineSettings(_Section):
    """How production runs the backend; see `mla_tune.session.Setup`.

    ``index_topk`` is there for sparse backends only, ``block_size`` for vLLM's and
    ``max_cudagraph_capture_size`` for vLLM's on a GPU.
    """

    mode: Literal["eager", "graph"]
    max_model_len: TokenCount
    block_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    max_cudagraph_capture_size: Annotated[int, Field(ge=0, le=2**20)] | None = None
    index_topk: TokenCount | None = None


def _decisive_digests(environment: Environment, backend: str, mode: str) -> dict[str, str] | None:
    """What of the software decides how fast ``backend`` is; None where nothing was looked at."""
    names = BACKENDS[backend].decided_by(mode) if backend in BACKENDS else ()
    return {
        name: environment.digests[name] for name in names if name in environment.digests
    } or None


_CHOSEN_BY_VLLM = ("block_size", "max_cudagraph_capture_size")


class Header(_Section):
    """What the entries are true for."""

    schema_version: int = WITHOUT_BETWEEN
    backend: KnownBackend
    device: Device
    model: ModelDimensions
    kv_cache_dtype: str
    quantization: str = UNQUANTIZED
    engine: EngineSettings
    software: dict[str, str]
    software_digests: dict[str, str] | None = None

    @classmethod
    def of(
        cls,
        environment: Environment,
        backend: str,
        model: MlaDimensions,
        kv_cache_dtype: str,
        mode: str,
        max_model_len: int,
        index_topk: int | None = None,
        *,
        quantization: str = UNQUANTIZED,
        block_size: int | None = None,
        max_cudagraph_capture_size: int | None = None,
    ) -> "Header":
        """The header of what is measured in ``environment``.

        A block size or capture size of None is vLLM's own.
        """
        given = {
            "block_size": block_size,
            "max_cudagraph_capture_size": max_cudagraph_capture_size,
        }
        digests = _decisive_digests(environment, backend, mode)
        header = cls(
            schema_version=WITH_DIGESTS if digests else WITHOUT_BETWEEN,
            backend=backend,
            device=Device(
                name=environment.device_name,
                compute_capability=environment.compute_capability,
                sm_count=environment.sm_count,
                locked_sm_clock_mhz=environment.locked_sm_clock_mhz,
                unwatched=environment.unwatched,
            ),
            model={name: getattr(model, name) for name in MlaDimensions.__dataclass_fields__},
            kv_cache_dtype=kv_cache_dtype,
            quantization=quantization,
            engine=EngineSettings.model_validate(
                {"mode": mode, "max_model_len": max_model_len, "index_topk": index_topk} | given
            ),
            software=environment.software,
            software_digests=digests,
        )
        return header.model_copy(update={"engine": header.full_engine})

    @property
    def title(self) -> str:
        """What a table is for, in a line."""
        vllm = self.software.get("vllm")
        return (
            f"{self.backend}, {self.device.name}, {self.model['num_q_heads']} heads, "
            f"KV {self.kv_cache_dtype}, {self.engine.mode}{f', vLLM {vllm}' if vllm else ''}"
        )

    @property
    def own_settings(self) -> dict[str, str | int]:
        """The settings of the engine that vLLM would not have chosen by itself, by name."""
        left_out = dict.fromkeys(_CHOSEN_BY_VLLM)
        bare = self.model_copy(update={"engine": self.engine.model_copy(update=left_out)})
        here, usual = self.full_engine.model_dump(), bare.full_engine.model_dump()
        changed = {name: here[name] for name in _CHOSEN_BY_VLLM if here[name] != usual[name]}
        if self.quantization == UNQUANTIZED:
            return changed
        return {"quantization": self.quantization, **changed}

    @property
    def full_engine(self) -> EngineSettings:
        """``engine`` with what it leaves out filled in, as vLLM chooses it."""
        backend = BACKENDS[self.backend]
        chosen: dict[str, int | None] = {}
        if self.engine.block_size is None and backend.blocks is not None:
            chosen["block_size"] = backend.blocks.own
        capability, vllm = self.device.compute_capability, self.software.get("vllm")
        captures = self.engine.max_cudagraph_capture_size is None and backend.is_vllm
        if captures and capability is not None and vllm is not None:
            chosen["max_cudagraph_capture_size"] = default_capture_size(capability, vllm)
        return self.engine.model_copy(update=chosen)

    def outside(self, plan: Plan) -> Iterator[tuple[str, str]]:
        """Each knob of ``plan`` that is out of the backend's bounds, and what is valid for it."""
        on_gpu = self.device.compute_capability is not None
        # On a CPU the count is of threads, which bound nothing.
        sm_count = self.device.sm_count if on_gpu else None
        return outside(BACKENDS[self.backend].bounds, plan, sm_count)

    def first_difference(self, other: "Header") -> tuple[str, Any, Any] | None:
        """The first field in which two headers differ, with both values; None if they agree."""
        mine, theirs = self._facts(), other._facts()
        for name in mine:
            if mine[name] != theirs[name]:
                return name, mine[name], theirs[name]
        ours, others = self.software_digests or {}, other.software_digests or {}
        for name in ours:
            # A table of before there were digests is told by its versions.
            if name in others and ours[name] != others[name]:
                return name, ours[name], others[name]
        return None

    def _facts(self) -> dict[str, Any]:
        """What the entries are true for, however the header is written."""
        full = self.model_copy(update={"engine": self.full_engine})
        return full.model_dump(
            exclude={"schema_version": True, "software_digests": True, "device": {"unwatched"}}
        )
