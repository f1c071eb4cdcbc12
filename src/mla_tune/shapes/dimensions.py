"""From ``model:`` of a shapes file to the dimensions that each GPU holds."""

__all__ = ["ModelOfFile", "model_of_file", "sharded"]

from dataclasses import dataclass

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes.model import KnownModel, MlaDimensions
from mla_tune.shapes.named_model import named_model
from mla_tune.shapes.presets import PRESETS
from mla_tune.shapes.sections import ModelSection
from mla_tune.shapes.vllm_benchmark import refuse_ordinary_attention


@dataclass(frozen=True)
class ModelOfFile:
    """What ``model:`` says.

    Attributes:
        dimensions: of the whole model.
        index_topk: of a model known to be sparse; None of any other.
        max_model_len: if the file names one with the model.
        notices: what was not given and where it was taken from, one line each.
    """

    dimensions: MlaDimensions
    index_topk: int | None
    max_model_len: int | None
    notices: tuple[str, ...]


def model_of_file(document: Document, model: str | ModelSection) -> ModelOfFile:
    """Resolve ``model:``.

    Dimensions that a known model or the file does not give are DeepSeek-V3's, which a notice says.

    Raises:
        InputError: an unknown model, or attention that is not MLA.
    """
    section = ModelSection(name=model) if isinstance(model, str) else model
    known = _known(document, section)
    where = document.where(("model",))
    notices = [f"{where}: model: {known.notice}"] if known and known.notice else []
    names = MlaDimensions.__dataclass_fields__
    given = {name: getattr(section, name) for name in names if getattr(section, name) is not None}
    base = known.dimensions if known else PRESETS["deepseek-v3"]
    taken = sorted(set(names) - set(given))
    if known is None and taken:
        notices.append(f"{where}: model: {', '.join(taken)} not given, taken from deepseek-v3")
    dims = MlaDimensions(**{name: given.get(name, getattr(base, name)) for name in names})
    is_known = known is not None or section.kv_lora_rank is not None
    if notice := refuse_ordinary_attention(document, section, dims, is_known=is_known):
        notices.append(notice)
    index_topk = known.index_topk if known else None
    return ModelOfFile(dims, index_topk, section.max_model_len, tuple(notices))


def _known(document: Document, section: ModelSection) -> KnownModel | None:
    """What the name stands for; None where a mapping's name is a word of its own."""
    if section.name is None:
        return None
    try:
        return named_model(section.name)
    except InputError as error:
        if section.num_q_heads is not None:
            return None
        where = document.where(("model",))
        raise InputError(f"{where}: {error.what}", valid=error.valid, remedy=error.remedy) from None


def sharded(
    document: Document, model: MlaDimensions, sizes: list[int]
) -> tuple[MlaDimensions, ...]:
    """The dimensions that one GPU holds, for each tensor-parallel size, without repetition.

    Raises:
        InputError: a size does not divide the heads.
    """
    try:
        return tuple(dict.fromkeys(model.sharded(size) for size in sizes))
    except InputError as error:
        where = document.where(("tensor_parallel_sizes",))
        raise InputError(f"{where}: {error.what}", valid=error.valid) from None
