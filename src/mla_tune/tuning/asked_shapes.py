"""The shapes of a run: a file or a mapping, as the options cut it down."""

__all__ = ["asked_shapes", "cut"]

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.printable import counted
from mla_tune.shapes.file import ShapesFile, checked_shapes, load_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.traffic.served_lengths import ServedLengths
from mla_tune.tuning.run_options import RunOptions


def asked_shapes(options: RunOptions, notice: Callable[[str], None]) -> ShapesFile:
    """The shapes of a run, cut down as its options say.

    Raises:
        InputError: no shapes, shapes that cannot be used, or none that is left; a record of
            served steps that cannot be read, or says nothing of their guards.
    """
    shapes = cut(_shapes_of(options), options, notice)
    if options.served_lengths is not None:
        _check_record(options.served_lengths, shapes)
    return shapes


def _check_record(served: ServedLengths, shapes: ShapesFile) -> None:
    if "graph" not in shapes.modes:
        raise InputError(
            f"{shapes.path}: engine.modes are {', '.join(shapes.modes)}, and only graph tables "
            "have guards",
            remedy="leave --guard served out, or add graph to the modes",
        )
    if not any(map(served.is_of, shapes.models)):
        heads = served.traffic.engine["model"]["num_q_heads"]
        raise InputError(
            f"the record {served.path} is of another model than {shapes.path} or of other heads: "
            f"{heads} on a GPU",
            valid=f"{', '.join(str(model.num_q_heads) for model in shapes.models)} heads on a GPU",
            remedy="record an engine of this model and tensor-parallel size",
        )


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
        notice(f"--max-tokens {options.max_tokens}: {counted(dropped, 'larger shape')} left out")
    return replace(shapes, cases=tuple(kept), ragged=ragged, max_tokens=options.max_tokens)
