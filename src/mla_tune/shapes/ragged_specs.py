"""``ragged_specs:`` of a shapes file: how ragged the batches of each captured size are."""

__all__ = ["MOST_SPECS", "ragged_specs"]

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes.batch import BatchShape, format_size
from mla_tune.shapes.ragged import RaggedSpec, longest_of
from mla_tune.shapes.sections import RaggedSpecSection, ShapesSection

MOST_SPECS = 16
"""Of one size: each is a case that every plan of its graph is measured on."""


def ragged_specs(document: Document, section: ShapesSection) -> tuple[RaggedSpec, ...]:
    """What ``ragged_specs:`` says.

    Raises:
        InputError: graphs are not tuned, a batch that cannot be, one that stands twice, too many
            of one size, or shares that leave nothing to its uniform batches.
    """
    listed = section.ragged_specs
    if listed and "graph" not in section.engine.modes:
        raise InputError(
            f"{document.where(('ragged_specs',))}: ragged_specs: is given, but only "
            f"{', '.join(section.engine.modes)} is tuned",
            valid="they are for captured batches: engine: {modes: graph}, or modes: [graph, eager]",
        )
    found: dict[tuple[int, int], list[RaggedSpec]] = {}
    for index, item in enumerate(listed):
        where = document.where(("ragged_specs", index))
        spec = _spec(where, item, section)
        others = found.setdefault(spec.size, [])
        _check_beside(where, item.spec, spec, others)
        others.append(spec)
    return tuple(spec for specs in found.values() for spec in specs)


def _spec(where: str, item: RaggedSpecSection, section: ShapesSection) -> RaggedSpec:
    try:
        shape = BatchShape.parse(item.spec)
    except InputError as error:
        raise InputError(f"{where}: {error.what}", valid=error.valid) from None
    group, mean, longest = shape.groups[0], shape.max_kv_len, item.longest
    if len(shape.groups) > 1 or group.count == 1:
        raise InputError(
            f"{where}: {item.spec!r} is no captured batch of several requests",
            valid="such as 8q1s1k: 8 requests of 1024 tokens in the mean",
        )
    most = longest_of(group.count, group.query_len, mean)
    if not mean < longest <= most:
        raise InputError(
            f"{where}: longest {format_size(longest)} in {item.spec!r}, whose KV length is the "
            "mean of its requests",
            valid=f"from {mean + 1} to {most}, where the others have one token before the new ones"
            if most > mean
            else f"a mean of {group.query_len + 2} or more",
        )
    in_cache = section.graph.kv_cache_tokens if section.graph is not None else None
    if in_cache is not None and shape.num_kv_tokens > in_cache:
        raise InputError(
            f"{where}: {item.spec!r} has {shape.num_kv_tokens} tokens",
            valid=f"up to the {in_cache} of kv_cache_tokens",
        )
    return RaggedSpec(group.count, group.query_len, mean, longest, item.share)


def _check_beside(where: str, text: str, spec: RaggedSpec, others: list[RaggedSpec]) -> None:
    lengths = [(other.mean_kv, other.longest_kv) for other in others]
    if (spec.mean_kv, spec.longest_kv) in lengths:
        raise InputError(
            f"{where}: {text!r} with longest {format_size(spec.longest_kv)} stands twice",
            remedy="remove one, or give one of them the joint share",
        )
    if len(others) == MOST_SPECS:
        raise InputError(
            f"{where}: more than {MOST_SPECS} ragged batches of {spec.requests} requests",
            remedy="join those that are alike: each is measured with every plan",
        )
    shares = sum(other.share for other in (*others, spec))
    if shares >= 1:
        raise InputError(
            f"{where}: the ragged batches of {spec.requests} requests have shares of {shares:g}",
            valid="below 1 in all; the rest is that of the batches of one length",
        )
