"""The parts of an installation that decide how fast a backend is, and a digest of each.

A table is true while what runs is the same, whatever the release is called. Each backend names its
parts, in its file below `mla_tune.vllm.backends`. Nothing of vLLM is imported to look at them.
"""

__all__ = ["Binary", "Package", "Part", "Release", "Source", "digests_of"]

import ast
import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mla_tune.versions import minor_release

LENGTH = 12
"""Hexadecimal digits of a digest, as a table's header holds it."""


class Part(Protocol):
    """One part of an installation."""

    @property
    def name(self) -> str:
        """What it is called in a header and in messages."""
        ...

    def digest(self) -> str | None:
        """The same for what runs the same; None where this installation does not have it."""
        ...


@dataclass(frozen=True)
class Source:
    """A Python file of vLLM, or some of what it defines.

    The digest is of the syntax tree without imports and docstrings, so that neither a comment nor
    another place of a helper counts. It does not depend on the version of Python.

    Attributes:
        file: below the package ``vllm``.
        symbols: functions, ``Class.method`` and variables that count; empty for all.
        name: as in `Part`.
    """

    file: str
    symbols: tuple[str, ...] = ()
    called: str = ""

    @property
    def name(self) -> str:
        return self.called or self.file.rpartition("/")[2]

    def digest(self) -> str | None:
        root = _package()
        if root is None or not (path := root / self.file).is_file():
            return None
        found = path.stat()
        return _source_digest(path, self.symbols, (found.st_size, found.st_mtime_ns))


@dataclass(frozen=True)
class Binary:
    """A compiled library of vLLM.

    Attributes:
        pattern: below the package ``vllm``, with one ``*`` for what names Python's ABI.
    """

    pattern: str

    @property
    def name(self) -> str:
        return self.pattern.rpartition("/")[2].replace("*", "")

    def digest(self) -> str | None:
        root = _package()
        path = next(iter(sorted(root.glob(self.pattern))), None) if root is not None else None
        if path is None:
            return None
        found = path.stat()
        return _binary_digest(path, (found.st_size, found.st_mtime_ns))


@dataclass(frozen=True)
class Package:
    """A package beside vLLM that holds kernels and is one with its version."""

    name: str

    def digest(self) -> str | None:
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Release:
    """The minor release of vLLM, for kernels in a library that is new in each of them."""

    name: str = "vLLM release"

    def digest(self) -> str | None:
        version = Package("vllm").digest()
        return version and minor_release(version)


def digests_of(parts: Iterable[Part]) -> dict[str, str]:
    """The digests of those of ``parts`` that this installation has, by name."""
    found = {part.name: part.digest() for part in parts}
    return {name: digest for name, digest in found.items() if digest is not None}


def _package() -> Path | None:
    spec = importlib.util.find_spec("vllm")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


@functools.cache
def _binary_digest(path: Path, stamp: tuple[int, int]) -> str:
    """As the wheel's RECORD has it; what was built in place is read, hundreds of megabytes."""
    recorded = _recorded_digest(path, stamp[0])
    if recorded is not None:
        return recorded
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:LENGTH]


def _recorded_digest(path: Path, size: int) -> str | None:
    """The digest in vLLM's RECORD, if that speaks of a file of this size in this place."""
    digest, recorded_size = _recorded_libraries().get(path, ("", ""))
    if recorded_size != str(size) or not digest.startswith("sha256="):
        return None
    padded = digest.removeprefix("sha256=") + "="
    return base64.urlsafe_b64decode(padded).hex()[:LENGTH]


@functools.cache
def _recorded_libraries() -> dict[Path, tuple[str, str]]:
    """Digest and size of each library of vLLM, as its wheel's RECORD has them, by path."""
    try:
        installed = importlib.metadata.distribution("vllm")
    except importlib.metadata.PackageNotFoundError:
        return {}
    lines = (installed.read_text("RECORD") or "").splitlines()
    found = (line.rsplit(",", 2) for line in lines if ".so," in line)
    return {Path(str(installed.locate_file(file))): (told, size) for file, told, size in found}


@functools.cache
def _source_digest(path: Path, symbols: tuple[str, ...], stamp: tuple[int, int]) -> str | None:
    del stamp  # a file that was changed is another one to the cache
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return hashlib.sha256(content).hexdigest()[:LENGTH]
    nodes = tree.body
    if symbols:
        nodes = [node for symbol in symbols for node in _defined(tree.body, symbol.split("."))]
    if not nodes:
        return None
    words = "\0".join(_spelled(ast.Module(body=nodes, type_ignores=[])))
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


def _defined(body: list[ast.stmt], path: list[str]) -> Iterator[ast.stmt]:
    """What in ``body`` defines the dotted name ``path``; a name may be defined for each case."""
    name, rest = path[0], path[1:]
    for node in body:
        if rest and isinstance(node, ast.ClassDef) and node.name == name:
            yield from _defined(node.body, rest)
        elif not rest and name in _names(node):
            yield node


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


# What says nothing about what runs, or is not there in every version of Python.
_LEFT_OUT = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _spelled(node: object) -> Iterator[str]:
    """A syntax tree as words, without imports and docstrings."""
    if isinstance(node, list):
        yield "["
        for item in node:
            yield from _spelled(item)
        yield "]"
    elif not isinstance(node, ast.AST):
        yield repr(node)
    elif not isinstance(node, ast.Import | ast.ImportFrom):
        yield type(node).__name__
        documented = isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False)
        for name, value in ast.iter_fields(node):
            if name not in _LEFT_OUT:
                kept = value[1:] if documented and name == "body" else value
                yield name
                yield from _spelled(kept)
