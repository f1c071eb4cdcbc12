"""All before an engine's start: what it is, which tables it has, and tuning what is missing."""

__all__ = ["Preparation", "prepared"]

from dataclasses import dataclass, replace

from mla_tune.errors import InputError
from mla_tune.registry import BACKENDS, canonical_name, get_backend
from mla_tune.serving.command_key import command_key
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_process import ask_vllm
from mla_tune.serving.pick import picked
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.tabled import tabled
from mla_tune.serving.vllm_command import VllmCommand


@dataclass(frozen=True)
class Preparation:
    """What an engine starts with.

    Attributes:
        command: vLLM's, with what was chosen for it.
        tables: the value of ``MLA_TUNE_TABLES``; None leaves the variable as it is.
        problem: why it starts untuned, or with less than all, in a line; or empty.
    """

    command: VllmCommand
    tables: str | None = None
    problem: str = ""


def prepared(options: PrepareOptions) -> Preparation:
    """Find out what the engine is, and tune what no table answers, as far as there is time.

    Raises:
        RefusedByVllm: vLLM itself refuses the command.
        NothingToPick: a backend was to be picked, and the command leaves no choice.
        InputError: nothing can be tuned for this engine.
        EnvironmentFailure: vLLM, the cache or the device failed.
    """
    own, *others = _described(options)
    if options.pick_backend:
        engine, found = picked(own, others, options)
    else:
        engine = _with_backend(own, options.backend)
        found = tabled(engine, options)
    command = options.command
    if engine.backend != own.backend and get_backend(str(engine.backend)).is_vllm:
        command = command.with_options("--attention-backend", str(engine.backend))
    return Preparation(command, found.variable, found.problem)


def _described(options: PrepareOptions) -> list[ServedEngine]:
    """What vLLM says of its command, or said when all was as it is now."""
    backends = [each.name for each in BACKENDS if each.is_vllm] if options.pick_backend else []
    key = " ".join((command_key(options.command, options.environ), *backends))
    if (text := options.cache.description(key)) is not None:
        try:
            engines = list(map(ServedEngine.from_json, text.splitlines() or [text]))
        except InputError:
            pass  # of another version, or damaged
        else:
            options.say("the same command as before: vLLM is not asked again")
            return engines
    left_s = max(options.left_s, 1.0)
    engines = ask_vllm(options.command, left_s, options.environ, backends)
    options.cache.keep_description(key, "\n".join(engine.as_json() for engine in engines))
    return engines


def _with_backend(engine: ServedEngine, asked: str | None) -> ServedEngine:
    """The engine with the backend asked of us."""
    return engine if asked is None else replace(engine, backend=canonical_name(asked))
