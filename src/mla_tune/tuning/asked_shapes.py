"""The shapes of a run: a file or a mapping, as the options cut it down."""

__all__ = ["asked_shapes", "cut"]

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.shapes.file import ShapesFile, checked_shapes, load_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.tuning.run_options import RunOptions


def asked_shapes(options: RunOptions, notice: Callable[[str], None]) -> ShapesFile:
    """The shapes of a run, cut down as its options say.

    Raises:
        InputError: no shapes, shapes that cannot be used, or none that is left.
    """
    return cut(_shapes_of(options), options, notice)


def _shapes_of(options: RunOptions) -> ShapesFile:
    if options.shapes is None:
        raise InputError("--shapes FILE is missing", remedy="'mla-tune --help' shows an example")
    if isinstance(options.shapes, Path):
        return load_shapes(options.shapes)
    return checked_shapes(MappingDocument.of(options.shapes))


def cut(shapes: ShapesFile, options: RunOptions, notice: Callable[[str], None]) -> ShapesFile:
    """Apply --max-tokens and --tensor-parallel-size.

    Raises:
        InputError: nothing is left, or the heads do not divide.
    """
    if options.tensor_parallel_size:
        whole = shapes.whole_model
        models = tuple(whole.sharded(size) for size in options.tensor_parallel_size)
        shapes = replace(shapes, models=tuple(dict.fromkeys(models)))
    if options.max_tokens is None:
        return shapes
    kept = [case for case in shapes.cases if case.shape.num_kv_tokens <= options.max_tokens]
    ragged = shapes.ragged.up_to(options.max_tokens)
    dropped = len(shapes.cases) - len(kept) + len(shapes.ragged.specs) - len(ragged.specs)
    if not kept and shapes.graph is None:
        smallest = min(case.shape.num_kv_tokens for case in shapes.cases)
        raise InputError(
            f"--max-tokens {options.max_tokens} leaves no shape of {shapes.path}",
            valid=f"{smallest} or more for this file",
        )
    if dropped:
        notice(f"--max-tokens {options.max_tokens}: {dropped} larger shapes left out")
    return replace(shapes, cases=tuple(kept), ragged=ragged, max_tokens=options.max_tokens)
