"""What an engine's description depends on, found without importing vLLM.

The command's own words, the files that they name, the variables that vLLM reads, the releases, and
the GPUs as their driver lists them.
"""

__all__ = ["command_key"]

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mla_tune._version import __version__
from mla_tune.environment import installed_versions
from mla_tune.errors import InputError
from mla_tune.files.document import Document, Kind
from mla_tune.serving.vllm_command import VllmCommand

_VARIABLES = ("VLLM_", "CUDA_", "HF_", "NVIDIA_", "TRITON_")
_CONFIG_FILE = Kind("configuration of vLLM", may_refer=True)
_PACKAGES = ("vllm", "torch", "transformers", "triton", "flashinfer-python")
MOST_FILES = 200
MOST_READ_BYTES = 32 << 20
"""The largest files beside a configuration are a tokenizer and the index of the weights: 8 and 9 MB
of DeepSeek-V3, which take some 20 ms together."""


def command_key(command: VllmCommand, environ: Mapping[str, str] = os.environ) -> str:
    """A text that changes whenever the engine of ``command`` might be described otherwise."""
    words = list(_words(command.arguments))
    variables = {k: v for k, v in sorted(environ.items()) if k.startswith(_VARIABLES)}
    return json.dumps(
        {
            "arguments": command.arguments,
            "folder": str(Path.cwd()),
            "files": [stamp for word in dict.fromkeys(words) for stamp in _stamps(word, environ)],
            "variables": variables,
            "software": {"mla-tune": __version__, **installed_versions(*_PACKAGES)},
            "GPUs": _gpus(),
        }
    )


def _words(arguments: tuple[str, ...]) -> Iterator[str]:
    """The words, and those inside of JSON, of ``--name=value``, and of files for ``--config``."""
    for before, word in zip(("", *arguments), arguments, strict=False):
        name, _, value = word.partition("=")
        given = value if name.startswith("--") and value else word
        yield given
        if given.startswith(("{", "[")):
            yield from _strings(_json(given))
        if "--config" in (before, name):
            try:
                yield from _strings(Document.load(Path(given), _CONFIG_FILE).data)
            except (InputError, ValueError):
                continue  # vLLM will say what is wrong with it


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _strings(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _strings(value)
    elif isinstance(data, list):
        for value in data:
            yield from _strings(value)


def _stamps(word: str, environ: Mapping[str, str]) -> Iterator[tuple[str, int | str, int]]:
    """What the files are that a word names; of a name on the hub its revision.

    Each with its name, size and digest: a container's start may write a model's folder anew. A
    large file is not read, and has the time of its last change instead.
    """
    try:
        path = Path(word).expanduser()
        if path.is_dir():
            files = sorted(path.glob("*.json"))[:MOST_FILES]
        elif path.is_file():
            files = [path]
        else:
            files = _revisions(word, environ)
        for file in files:
            found = file.stat()
            state: int | str = found.st_mtime_ns
            if found.st_size <= MOST_READ_BYTES:
                state = hashlib.sha256(file.read_bytes()).hexdigest()
            yield str(file), state, found.st_size
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL in it, no home
        return


def _revisions(word: str, environ: Mapping[str, str]) -> list[Path]:
    """The files of Hugging Face's cache that say which revision a name stands for."""
    if word.count("/") != 1 or word.startswith("/"):
        return []
    home = environ.get("HF_HOME") or str(
        Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    hub = Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    return sorted((hub / f"models--{word.replace('/', '--')}" / "refs").glob("*"))[:MOST_FILES]


def _gpus() -> list[str]:
    """The driver, and the name and identity of each GPU; nothing where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        gpus = [f"{pynvml.nvmlDeviceGetName(h)} {pynvml.nvmlDeviceGetUUID(h)}" for h in handles]
        return [str(pynvml.nvmlSystemGetDriverVersion()), *gpus]
    except pynvml.NVMLError:
        return []
