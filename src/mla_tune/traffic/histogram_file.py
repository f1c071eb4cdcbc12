"""The files of ``MLA_TUNE_RECORD``: traffic histograms, one a process.

Formats:
    1  KV lengths in eighths of an octave; rows that pad a graph counted in the mean; unbounded.
    2  lengths in half octaves, of the real requests alone; at most `MOST_KINDS` kinds, the
       others as totals; ``requests``, the sum of the real requests.
"""

__all__ = ["FORMAT", "HistogramFile", "histogram_files", "histogram_lines"]

import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, ValidationError

from mla_tune.errors import InputError
from mla_tune.files.regular_file import read_text
from mla_tune.table.matching import EngineFacts
from mla_tune.traffic.histogram import TrafficHistogram

FORMAT = 2

MOST_BYTES = 16 << 20
"""Thirty times what format 2 can fill. A file of format 1 with 110,000 kinds is as large."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r} is not a name")
    return text


# Nine digits, as in the grammar of batch shapes.
Length = Annotated[int, Field(ge=1, lt=10**9)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
Outcome = Annotated[str, Field(pattern=r"^[a-z][a-z _-]{0,31}$")]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Model(_Part):
    num_q_heads: Length
    kv_lora_rank: Length
    qk_nope_head_dim: Length
    qk_rope_head_dim: Annotated[int, Field(ge=0, lt=10**9)]
    v_head_dim: Length


class _Step(_Part):
    """A `StepKind` with how often it was served."""

    mode: Literal["graph", "eager"]
    outcome: Outcome
    batch: Length
    query_len: Length
    kv_len: Length
    longest_kv_len: Length
    count: Count
    requests: Count | None = None


class _Others(_Part):
    """Steps of the kinds that are not listed one by one."""

    mode: Literal["graph", "eager"]
    outcome: Outcome
    count: Count


class HistogramFile(_Part):
    """One file: the engine that wrote it, and what it served."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    backend: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,64}$")]
    model: _Model
    kv_cache_dtype: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
    max_model_len: Length
    # Files of before table schema 2 lack these three.
    quantization: Name | None = None
    block_size: Length | None = None
    max_cudagraph_capture_size: Annotated[int, Field(ge=0, le=2**20)] | None = None
    device: Name
    vllm: Name
    # One wrong step is enough to refuse the file; a list of a million would fill the memory.
    steps: Annotated[list[_Step], FailFast()]
    others: Annotated[list[_Others], FailFast()] = []

    @classmethod
    def load(cls, file: Path) -> "HistogramFile":
        """Read one file.

        Raises:
            InputError: it cannot be read, is too large, or is no traffic histogram; names the
                place.
        """
        text = read_text(file, what="traffic histogram", most_bytes=MOST_BYTES)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"traffic histogram {file} cannot be read: {error}") from None
        valid = f"a file written with MLA_TUNE_RECORD, of format 1 to {FORMAT}"
        if not isinstance(data, dict) or not isinstance(data.get("format"), int):
            raise InputError(f"{file} is not a traffic histogram", valid=valid)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, detail["loc"]))
            what = f"{file} is not a traffic histogram: {where}: {detail['msg']}"
            raise InputError(what, valid=valid) from None


def histogram_files(path: Path) -> list[Path]:
    """The files that the processes of all runs with ``MLA_TUNE_RECORD=path`` have written."""
    own = [path] if path.is_file() else []
    pattern = f"{glob.escape(path.name)}.*.json"
    return own + sorted(p for p in path.parent.glob(pattern) if p.is_file())


def histogram_lines(facts: EngineFacts, histogram: TrafficHistogram) -> Iterator[str]:
    """The text of a file in today's format, one kind of step a line."""
    head = {
        "format": FORMAT,
        "backend": facts.backend,
        "model": dict(facts.model),
        "kv_cache_dtype": facts.kv_cache_dtype,
        "max_model_len": facts.max_model_len,
        "quantization": facts.quantization,
        "block_size": facts.block_size,
        "max_cudagraph_capture_size": facts.max_cudagraph_capture_size,
        "device": facts.device_name,
        "vllm": facts.vllm,
    }
    others = [
        {"mode": mode, "outcome": outcome, "count": count}
        for (mode, outcome), count in histogram.others.most_common()
    ]
    yield json.dumps(head)[:-1] + f', "others": {json.dumps(others)}, "steps": [\n'
    for number, kind in enumerate(histogram.most_served()):
        steps, requests = histogram.counts[kind]
        row = {**kind._asdict(), "count": steps, "requests": requests}
        yield (",\n" if number else "") + json.dumps(row)
    yield "\n]}\n"
