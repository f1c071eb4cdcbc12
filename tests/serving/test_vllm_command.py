import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.serving.vllm_command import VllmCommand

words = st.lists(st.text(min_size=1, max_size=12), max_size=6)


@given(words)
def test_what_comes_after_serve_is_vllms(rest: list[str]) -> None:
    command = VllmCommand.of(["/opt/venv/bin/vllm", "serve", *rest])
    assert command.arguments == tuple(rest)
    assert command.argv[:2] == ("/opt/venv/bin/vllm", "serve")


def test_vllm_as_a_module() -> None:
    command = VllmCommand.of(["python3", "-m", "vllm.entrypoints.cli.main", "serve", "model"])
    assert command.arguments == ("model",)


@pytest.mark.parametrize(
    "argv",
    [[], ["serve", "model"], ["vllm"], ["vllm", "bench"], ["python3", "-m", "http.server"], ["-m"]],
)
def test_another_command_is_refused(argv: list[str]) -> None:
    with pytest.raises(InputError, match="valid: vllm serve MODEL"):
        VllmCommand.of(argv)


def test_options_are_added_at_the_end() -> None:
    command = VllmCommand.of(["vllm", "serve", "a b"]).with_options("--attention-backend", "X")
    assert command.arguments == ("a b", "--attention-backend", "X")
    assert str(command) == "vllm serve 'a b' --attention-backend X"
