"""Setting an attribute for a while, and seeing what a function is really called with.

There is no official way to observe a kernel launch. So the name under which vLLM finds the function
is given a stand-in, and put back afterwards.
"""

__all__ = ["arguments_of", "calls_of", "set_for_now"]

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def set_for_now(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give ``owner`` another ``name`` for a while; a class attribute shows through afterwards."""
    is_property = isinstance(inspect.getattr_static(type(owner), name, None), property)
    had_own = is_property or name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def arguments_of(owner: Any, function: str) -> Iterator[list[tuple[Any, Any]]]:
    """Collect the arguments of every call of ``owner.function``, which still runs."""
    calls: list[tuple[Any, Any]] = []
    with _watched(owner, function, lambda *args, **kwargs: calls.append((args, kwargs))):
        yield calls


@contextmanager
def calls_of(owner: Any, function: str, argument: str | None = None) -> Iterator[list[Any]]:
    """Collect ``argument`` (or None) of every call of ``owner.function``, which still runs."""
    signature = inspect.signature(getattr(owner, function))
    seen: list[Any] = []

    def note(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # A wrapper declared with **kwargs binds its keyword under that name.
        seen.append(bound.arguments.get(argument, kwargs.get(argument)) if argument else None)

    with _watched(owner, function, note):
        yield seen


@contextmanager
def _watched(owner: Any, function: str, note: Callable[..., None]) -> Iterator[None]:
    original = getattr(owner, function)

    @functools.wraps(original)
    def watching(*args: Any, **kwargs: Any) -> Any:
        note(*args, **kwargs)
        return original(*args, **kwargs)

    with set_for_now(owner, function, watching):
        yield
