"""The backends by name. Knowing them imports neither torch nor vLLM."""

__all__ = [
    "BACKENDS",
    "Registry",
    "canonical_name",
    "get_backend",
    "session_modules",
    "vllm_backend",
]

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mla_tune.errors import InputError, nearest_hint
from mla_tune.session import Backend
from mla_tune.torch_mla.backend import TorchMla
from mla_tune.vllm import backends as vllm_backends
from mla_tune.vllm.backend import VllmBackend

VLLM_MODULES = (
    "vllm.config",
    "vllm.distributed.parallel_state",
    "vllm.model_executor.layers.linear",
    "vllm.model_executor.layers.attention",
    "mla_tune.vllm.session.session",
)


class Registry:
    """Backends by name, in the order in which they are listed."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self._backends = {backend.name: backend for backend in backends}

    def __iter__(self) -> Iterator[Backend]:
        return iter(tuple(self._backends.values()))

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` is a backend's own name; aliases do not count."""
        return name in self._backends

    def __getitem__(self, name: str) -> Backend:
        """The backend with that name of its own; KeyError without one."""
        return self._backends[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._backends)

    def canonical_name(self, name: str) -> str:
        """Resolve a backend's name, or its alias in vLLM's attention benchmark.

        Raises:
            InputError: unknown; lists the known ones.
        """
        if name in self._backends:
            return name
        for backend in self:
            if name in backend.aliases:
                return backend.name
        raise InputError(
            f"unknown backend {name!r}",
            valid=", ".join(self.names),
            remedy=nearest_hint(name.upper(), self.names)
            or "'mla-tune backends' says which run here",
        )

    @contextmanager
    def registered(self, backend: Backend) -> Iterator[None]:
        """Have one more backend for a while, as a test of a made-up one does."""
        if backend.name in self._backends:
            raise ValueError(f"there is a backend {backend.name} already")
        self._backends[backend.name] = backend
        try:
            yield
        finally:
            del self._backends[backend.name]


BACKENDS = Registry((TorchMla(), *vllm_backends.found()))


def canonical_name(name: str) -> str:
    """See `Registry.canonical_name`."""
    return BACKENDS.canonical_name(name)


def get_backend(name: str) -> Backend:
    """The backend called ``name``, or by its alias. Raises as `Registry.canonical_name` does."""
    return BACKENDS[BACKENDS.canonical_name(name)]


def vllm_backend(name: str) -> VllmBackend:
    """The backend of vLLM with that name of its own; KeyError without one."""
    backend = BACKENDS[name]
    if not isinstance(backend, VllmBackend):
        raise KeyError(name)
    return backend


def session_modules(name: str, device: str) -> tuple[str, ...]:
    """What a session of a backend imports, as far as a process can before it has the device.

    It is most of the time that opening one takes. On a CPU vLLM is left out, which has to be told
    of that before it is imported.
    """
    backend = get_backend(name)
    if not isinstance(backend, VllmBackend):
        return ("torch", "mla_tune.torch_mla.attention")
    own = f"vllm.v1.attention.backends.mla.{backend.module}"
    return ("torch",) if device == "cpu" else ("torch", *VLLM_MODULES, own)
