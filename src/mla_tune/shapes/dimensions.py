"""From ``model:`` of a shapes file to the dimensions that each GPU holds."""

__all__ = ["model_dimensions", "sharded"]

from mla_tune.errors import InputError, nearest_hint
from mla_tune.files.document import Document
from mla_tune.shapes.model import PRESETS, MlaDimensions
from mla_tune.shapes.sections import ModelSection
from mla_tune.shapes.vllm_benchmark import refuse_ordinary_attention


def model_dimensions(
    document: Document, model: str | ModelSection
) -> tuple[MlaDimensions, int | None, list[str]]:
    """Resolve ``model:`` to dimensions, a model length if it names one, and notices.

    Dimensions that a known model or the file does not give are DeepSeek-V3's, which a notice says.

    Raises:
        InputError: an unknown model, or attention that is not MLA.
    """
    if isinstance(model, str):
        model = ModelSection(name=model)
        unknown_name_ok = False
    else:
        unknown_name_ok = model.num_q_heads is not None
    notices: list[str] = []
    known = PRESETS.get((model.name or "").lower())
    if known is None and model.name is not None and not unknown_name_ok:
        raise InputError(
            f"{document.where(('model',))}: unknown model {model.name!r}",
            valid=f"{', '.join(PRESETS)}, or a mapping that gives num_q_heads and the dimensions",
            remedy=nearest_hint(model.name.lower(), PRESETS),
        )
    names = MlaDimensions.__dataclass_fields__
    given = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    base = known or PRESETS["deepseek-v3"]
    if known is None:
        taken = sorted(set(names) - set(given))
        if taken:
            where = document.where(("model",))
            notices.append(f"{where}: model: {', '.join(taken)} not given, taken from deepseek-v3")
    dims = MlaDimensions(**{name: given.get(name, getattr(base, name)) for name in names})
    is_known = known is not None or model.kv_lora_rank is not None
    if notice := refuse_ordinary_attention(document, model, dims, is_known=is_known):
        notices.append(notice)
    return dims, model.max_model_len, notices


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
