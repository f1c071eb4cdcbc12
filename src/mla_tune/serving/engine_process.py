"""Asking vLLM about a command line, from a process that does not import it.

The import takes ten seconds and initialises much; a crash or a hang of it is a line here.
"""

__all__ = ["NothingToPick", "RefusedByVllm", "ask_vllm"]

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.vllm_command import VllmCommand
from mla_tune.vllm import compat

MODULE = "mla_tune.serving.engine_main"
USAGE_ERROR = 2  # argparse's


class RefusedByVllm(InputError):
    """VLLM itself refuses the command: its own message is the one to show."""


class NothingToPick(InputError):
    """The backend was to be picked, and this command leaves no choice."""


def ask_vllm(
    command: VllmCommand,
    timeout_s: float,
    environ: Mapping[str, str] = os.environ,
    backends: Sequence[str] = (),
) -> list[ServedEngine]:
    """The engine that ``command`` would start, and then the same with other backends.

    Args:
        command: its arguments are read by vLLM's own parser.
        timeout_s: seconds after which an answer counts as none.
        environ: the environment that vLLM would have.
        backends: to try; each that vLLM takes has an engine of its own, block size and all.

    Raises:
        NothingToPick: there are ``backends`` to try, and the command leaves no choice.
        RefusedByVllm: vLLM's parser or its configuration refuses the command.
        InputError: no table can be for this engine, or the arguments ask for help alone.
        EnvironmentFailure: vLLM is not there, crashed, or did not answer in time.
    """
    if compat.installed() is None:
        raise EnvironmentFailure(
            "vLLM is not installed beside mla-tune", remedy="pip install 'mla-tune[vllm]'"
        )
    read, write = os.pipe()
    with os.fdopen(read, "rb") as answers:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(write), ",".join(backends), *command.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[write],
                env=_without_tables(environ),
                start_new_session=True,
            )
        except OSError as error:
            raise _no_answer(f"cannot be started: {error.strerror or error}") from None
        finally:
            os.close(write)
        said = _output(process, timeout_s)
        answer = answers.read()
    if not answer:
        raise _unanswered(process.returncode, said)
    return _engines_in(json.loads(answer))


def _without_tables(environ: Mapping[str, str]) -> dict[str, str]:
    """The plugin has nothing to do in a process that only looks."""
    return {name: value for name, value in environ.items() if name != "MLA_TUNE_TABLES"}


def _output(process: "subprocess.Popen[bytes]", timeout_s: float) -> str:
    """What it printed until its end, which comes after ``timeout_s`` at the latest.

    Errors come last: what is printed to a pipe is written when it fills, or at the end.
    """
    try:
        printed, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise _no_answer(f"did not say within {timeout_s:.0f} s what it would serve") from None
    finally:
        # Those that it has started too: vLLM looks at a model in a process of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return b"\n".join((printed, errors)).decode(errors="replace")


def _unanswered(code: int, said: str) -> Exception:
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1].strip()[:400] if lines else "it printed nothing"
    if code == USAGE_ERROR:
        return RefusedByVllm(last)
    if code == 0:
        return InputError("these arguments start no server", valid="vllm serve MODEL …")
    cause = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    return _no_answer(f"ended ({cause}) before it said what it would serve: {last}")


def _no_answer(what: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"vLLM {what}", remedy="vLLM has to be installed beside mla-tune, and to start by itself"
    )


def _engines_in(answer: dict[str, Any]) -> list[ServedEngine]:
    if "engine" in answer:
        return list(map(ServedEngine.from_json, (answer["engine"], *answer["others"])))
    if "no_choice" in answer:
        raise NothingToPick(
            f"there is no backend to pick: {answer['no_choice']}",
            remedy="leave out --pick-backend",
        )
    if "refused" in answer:
        raise RefusedByVllm(f"vLLM refuses this command: {answer['refused']}")
    raise InputError(str(answer["not_tunable"]))
