import pytest

from mla_tune.errors import InputError
from mla_tune.serving.engine import ServedEngine
from served_engines import CPU, engine


@pytest.mark.parametrize("changes", [{}, {"device": CPU, "backend": None, "capture_sizes": ()}])
def test_a_description_survives_the_way_between_processes(changes: dict[str, object]) -> None:
    described = engine(**changes)
    assert ServedEngine.from_json(described.as_json()) == described


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"vllm": 1}'])
def test_that_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the description of an engine"):
        ServedEngine.from_json(text)
