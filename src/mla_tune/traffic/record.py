"""The files of ``MLA_TUNE_RECORD``: which there are, and what one says.

Formats:
    1  KV lengths in eighths of an octave; rows that pad a graph counted in the mean; unbounded.
    2  lengths in half octaves, of the real requests alone; at most `MOST_KINDS` kinds, the
       others as totals; ``requests``, the sum of the real requests.
"""

__all__ = ["RECORD_FORMAT", "Record", "record_files"]

import glob
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, ValidationError

from mla_tune.errors import InputError
from mla_tune.files.regular_file import read_text

RECORD_FORMAT = 2

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
    qk_rope_head_dim: Length
    v_head_dim: Length


class _Step(_Part):
    """A `Kind` with how often it was served."""

    mode: Literal["graph", "eager"]
    outcome: Outcome
    batch: Length
    query_len: Length
    kv_len: Length
    longest_kv_len: Length
    count: Count
    requests: Count | None = None


class _Others(_Part):
    """Steps without a kind of their own."""

    mode: Literal["graph", "eager"]
    outcome: Outcome
    count: Count


class Record(_Part):
    """One file: the engine that wrote it, and what it served."""

    format: Annotated[int, Field(ge=1, le=RECORD_FORMAT)]
    backend: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,64}$")]
    model: _Model
    kv_cache_dtype: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
    max_model_len: Length
    # Absent in records of before table schema 2.
    quantization: Name | None = None
    block_size: Length | None = None
    max_cudagraph_capture_size: Annotated[int, Field(ge=0, le=2**20)] | None = None
    device: Name
    vllm: Name
    # Not all of a million wrong steps need be told of.
    steps: Annotated[list[_Step], FailFast()]
    others: Annotated[list[_Others], FailFast()] = []

    @classmethod
    def load(cls, file: Path) -> "Record":
        """Read one file.

        Raises:
            InputError: it cannot be read, is too large, or is no record; names the place.
        """
        text = read_text(file, what="record", most_bytes=MOST_BYTES)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"record {file} cannot be read: {error}") from None
        valid = f"a file written with MLA_TUNE_RECORD, of format 1 to {RECORD_FORMAT}"
        if not isinstance(data, dict) or not isinstance(data.get("format"), int):
            raise InputError(f"{file} is not a record of served shapes", valid=valid)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, detail["loc"]))
            what = f"{file} is not a record of served shapes: {where}: {detail['msg']}"
            raise InputError(what, valid=valid) from None


def record_files(path: Path) -> list[Path]:
    """The files that the processes of all runs with ``MLA_TUNE_RECORD=path`` have written."""
    own = [path] if path.is_file() else []
    pattern = f"{glob.escape(path.name)}.*.json"
    return own + sorted(p for p in path.parent.glob(pattern) if p.is_file())
