"""All that differs between vLLM releases: here which there are, and how to find what one has.

Line by line against the sources of 0.20.2, 0.26.0, 0.32.0 and 0.33.0. Where a feature can be asked
for (a parameter, an attribute), that decides and not the release number, so that a newer release
works as long as it still has what is used; if not, `UnavailableError` names what is missing. What
a single backend has from which release on stands in that backend's file.
"""

__all__ = [
    "NEWEST_RELEASE",
    "OLDEST",
    "backend_class",
    "backend_source",
    "imports",
    "installed",
    "module",
    "release",
    "since",
    "supported_release",
    "symbol",
]

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from mla_tune.errors import InputError, UnavailableError
from mla_tune.versions import is_development_build, release_numbers

# The oldest release that is driven, and the newest that was read. A test compares the pins.
OLDEST = (0, 20, 2)
NEWEST = (0, 33, 0)
NEWEST_RELEASE = ".".join(map(str, NEWEST))
KNOWN = " to ".join(".".join(map(str, numbers)) for numbers in (OLDEST, NEWEST))


def installed() -> str | None:
    """The version of the installed vLLM, or None."""
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None


def release() -> tuple[int, ...]:
    """The installed release as numbers, such as ``(0, 26, 0)``; empty when there is none."""
    version = installed()
    if version is None:
        return ()
    try:
        return release_numbers(version)
    except InputError as error:
        raise UnavailableError(error.what, valid=f"vLLM {KNOWN}") from None


def since(numbers: tuple[int, ...]) -> bool:
    """Whether the installed release is ``numbers`` or newer. Of no vLLM the newest is told."""
    found = release()
    return not found or found >= numbers


def supported_release() -> str | None:
    """Why the installed release cannot be driven, or None."""
    found = release()
    if not found:
        return "vLLM is not installed: pip install 'mla-tune[vllm]'"
    if found >= OLDEST:
        return None
    version = installed() or _dotted(found)
    if is_development_build(version):
        # setuptools-scm counts from 0.1 in a clone without tags.
        return f"vLLM {version} was built without git tags and does not say what release it is of"
    return f"vLLM {_dotted(found)} is older than {_dotted(OLDEST)}, the oldest that is driven"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def module(name: str) -> Any:
    """Import a module of vLLM.

    Raises:
        UnavailableError: this release does not have it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name, error) from error


def symbol(module_name: str, name: str) -> Any:
    """Import ``name`` from a module of vLLM. Raises as `module` does."""
    try:
        return getattr(module(module_name), name)
    except AttributeError as error:
        raise _missing(f"{module_name}.{name}", error) from error


def _missing(what: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"vLLM {_dotted(release())} has no {what} ({error})",
        valid=f"mla-tune was written against vLLM {KNOWN}",
        remedy="install one of those, or report this release",
    )


def imports(module: str) -> bool:
    """Whether a module imports; optional packages fail to in many ways."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def backend_source(name: str) -> Path | None:
    """The file of ``vllm/v1/attention/backends/mla/<name>.py``, without importing vLLM."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "v1/attention/backends/mla" / f"{name}.py"
    return path if path.exists() else None


def backend_class(name: str) -> Any:
    """VLLM's class of the backend ``name``.

    Raises:
        UnavailableError: this release has no such backend, or it does not import here.
    """
    registry = symbol("vllm.v1.attention.backends.registry", "AttentionBackendEnum")
    try:
        return registry[name].get_class()
    except (KeyError, ValueError) as error:
        raise UnavailableError(f"vLLM {_dotted(release())} has no backend {name}") from error
    except Exception as error:
        # A missing extension surfaces as ImportError, AssertionError or RuntimeError.
        raise UnavailableError(
            f"{name} of vLLM {_dotted(release())} does not import: {error}"
        ) from error
