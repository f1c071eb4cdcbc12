"""What pydantic finds wrong in a shapes file, said with its line and what is valid there."""

__all__ = ["shortened", "validated"]

from typing import Any

from pydantic import BaseModel, ValidationError

from mla_tune.errors import InputError, nearest_hint
from mla_tune.files.document import Document
from mla_tune.shapes.sections import (
    EngineSection,
    Grid,
    ModelSection,
    RaggedSpecSection,
    ShapesSection,
    WeightedSpec,
)


def validated(document: Document, data: dict[str, Any]) -> ShapesSection:
    """Check ``data``, what counts of ``document``, against the schema of a shapes file.

    Raises:
        InputError: the first finding, with its line.
    """
    try:
        return ShapesSection.model_validate(data)
    except ValidationError as error:
        raise _schema_error(document, error) from None


def _schema_error(document: Document, error: ValidationError) -> InputError:
    """Say the first of pydantic's findings in our own form, with the line it stands on."""
    # A union reports one finding per member; the deepest is about the one that was meant.
    detail = max(error.errors(), key=lambda item: len(item["loc"]))
    location = _without_union_members(detail["loc"])
    where, key = document.where(location), ".".join(map(str, location))
    if detail["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return InputError(
            f"{where}: unknown key {key!r}",
            valid=", ".join(known),
            remedy=nearest_hint(str(location[-1]), known) or "remove it",
        )
    if detail["type"] == "missing":
        return InputError(f"{where}: {key!r} is missing")
    message = detail["msg"].removeprefix("Value error, ")
    return InputError(f"{where}: {key}: {message}, not {shortened(detail['input'])}")


def shortened(value: Any) -> str:
    """A value as it is quoted in a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_union_members(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop the names of types that pydantic puts among the keys where a union stands."""
    position = {"model": 1, "batch_specs": 2}.get(str(location[0]) if location else "")
    kept = [part for index, part in enumerate(location) if index != position]
    return tuple(kept[:-1] if len(kept) > 1 and kept[-1] == "[key]" else kept)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "model": ModelSection,
        "engine": EngineSection,
        "grids": Grid,
        "batch_specs": WeightedSpec,
        "ragged_specs": RaggedSpecSection,
    }
    section = sections.get(str(location[0]), ShapesSection) if location else ShapesSection
    return list(section.model_fields)
