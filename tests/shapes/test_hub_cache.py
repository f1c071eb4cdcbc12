import pytest

from mla_tune.shapes.hub_cache import cached_config

constants = pytest.importorskip("huggingface_hub.constants", reason="comes with vLLM")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_the_config_of_a_cached_model_is_found_and_of_no_other(cache):
    commit = "0" * 40
    model = cache / "models--owner--Some-Model"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    assert cached_config("owner/Some-Model") is None
    (snapshot / "config.json").write_text("{}")
    assert cached_config("owner/Some-Model") == snapshot / "config.json"
    assert cached_config("owner/Another") is None


NO_NAMES = ("name", "/name", "a/b/c", "owner/", "o" * 500 + "/x", "a\0/b", "a b/c", "../x", "--/--")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", NO_NAMES)
def test_what_no_model_of_the_hub_is_called_is_not_found(name):
    assert cached_config(name) is None
