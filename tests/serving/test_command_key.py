import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_tune.serving import command_key as module
from mla_tune.serving.command_key import command_key
from mla_tune.serving.vllm_command import VllmCommand

Key = Callable[..., str]


@pytest.fixture
def key(tmp_path: Path) -> Key:
    def of(*arguments: str, **environ: str) -> str:
        variables = {"HF_HOME": str(tmp_path / "hub"), **environ}
        return command_key(VllmCommand.of(["vllm", "serve", *arguments]), variables)

    return of


def touched(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_same_command_has_the_same_key(key: Key) -> None:
    assert key("model", "--port", "1") == key("model", "--port", "1")
    assert key("model", "--port", "1") != key("model", "--port", "2")


def test_variables_of_vllm_count_and_others_do_not(key: Key) -> None:
    assert key("model", VLLM_MLA_DISABLE="1") != key("model")
    assert key("model", MLA_TUNE_TABLES="tables", HOME="/root") == key("model")


@pytest.mark.parametrize("how", ["{}", "--model={}", '{{"model": "{}"}}'])
def test_a_changed_config_of_the_model_changes_the_key(key: Key, tmp_path: Path, how: str) -> None:
    config = touched(tmp_path / "model" / "config.json")
    argument = how.format(tmp_path / "model")
    before = key(argument)
    os.utime(config, ns=(1, 1))
    assert key(argument) == before, "the same was written again"
    touched(config, "[]")
    assert key(argument) != before


def test_of_a_large_file_the_time_counts(
    key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_READ_BYTES", 10)
    tokenizer = touched(tmp_path / "model" / "tokenizer.json", "[0, 1, 2, 3]")
    before = key(str(tmp_path / "model"))
    os.utime(tokenizer, ns=(1, 1))
    assert key(str(tmp_path / "model")) != before


def test_a_configuration_file_counts_with_what_it_names(key: Key, tmp_path: Path) -> None:
    config = touched(tmp_path / "model" / "config.json")
    settings = touched(tmp_path / "serve.yaml", f"model: {tmp_path / 'model'}\n")
    before = key("--config", str(settings))
    touched(config, "[]")
    after = key("--config", str(settings))
    assert after != before
    touched(settings, "model: other\nport: 1\n")
    assert key("--config", str(settings)) != after


def test_another_revision_of_a_name_on_the_hub(key: Key, tmp_path: Path) -> None:
    before = key("org/model")
    touched(tmp_path / "hub" / "hub" / "models--org--model" / "refs" / "main", "abc")
    assert key("org/model") != before


@pytest.mark.parametrize(
    "word", ["\0", "a" * 5000, "{not json", "~nobody/x", "[1, {}]", "--config"]
)
def test_any_word_has_a_key(key: Key, word: str) -> None:
    assert json.loads(key(word, "--config", word))
