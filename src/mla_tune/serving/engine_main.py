"""The process that asks vLLM what a command line means: its parser, its configuration, no weights.

Called as ``python -m mla_tune.serving.engine_main FD BACKENDS ARGUMENTS…``; the answer goes to the
file descriptor as JSON, since vLLM prints what it likes. Without an answer vLLM's parser has ended
this process, or something has killed it. BACKENDS, joined by commas, are tried beside the one that
vLLM chooses; there may be none.
"""

__all__ = ["main"]

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mla_tune.errors import UnavailableError
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_config import NotTunable, no_choice, served_engine
from mla_tune.serving.on_paper import configure_on_paper
from mla_tune.vllm import compat

# Of 0.33, of 0.32, and before.
_PARSER_MODULES = (
    "vllm.entrypoints.common.cli_args",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.openai.cli_args",
)


def main(arguments: Sequence[str]) -> None:
    """Answer for the arguments of ``vllm serve``."""
    file, backends, *words = arguments
    configure_on_paper()
    args = _parsed(words)
    answer: dict[str, Any]
    try:
        answer = _answer(args, words, [name for name in backends.split(",") if name])
    except NotTunable as error:
        answer = {"not_tunable": str(error)}
    except (ValueError, NotImplementedError, OSError) as error:  # what vLLM's configs raise
        answer = {"refused": _shortened(str(error))}
    with os.fdopen(int(file), "w", encoding="utf-8") as out:
        json.dump(answer, out)


def _answer(args: Any, words: Sequence[str], backends: Sequence[str]) -> dict[str, Any]:
    vllm_config = _configured(args)
    engine = served_engine(vllm_config)
    if backends and (reason := no_choice(vllm_config)) is not None:
        return {"no_choice": reason}
    others = [name for name in backends if name != engine.backend]
    found = _with_each(words, others) if engine.backend is not None else []
    return {"engine": engine.as_json(), "others": [other.as_json() for other in found]}


def _with_each(words: Sequence[str], backends: Sequence[str]) -> Iterator[ServedEngine]:
    """The engine with each backend that vLLM does not refuse: its release, GPU or model may."""
    for name in backends:
        try:
            engine = served_engine(_configured(_parsed([*words, "--attention-backend", name])))
        except (Exception, SystemExit):
            continue
        if engine.backend == name:
            yield engine


def _parsed(words: Sequence[str]) -> Any:
    """As ``vllm serve`` itself parses: its ``main`` imports all other commands too."""
    cli_args = _cli_args()
    parser = compat.symbol("vllm.utils.argparse_utils", "FlexibleArgumentParser")(prog="vllm")
    commands = parser.add_subparsers(required=False, dest="subparser")
    cli_args.make_arg_parser(commands.add_parser("serve", prog="vllm serve"))
    args = parser.parse_args(["serve", *words])
    cli_args.validate_parsed_serve_args(args)
    return args


def _cli_args() -> Any:
    for name in _PARSER_MODULES[:-1]:
        try:
            return compat.module(name)
        except UnavailableError:
            continue
    return compat.module(_PARSER_MODULES[-1])


def _configured(args: Any) -> Any:
    # As `ServeSubcommand.cmd` does, and `build_async_engine_client` after it.
    if getattr(args, "model_tag", None) is not None:
        args.model = args.model_tag
    engine_args = compat.symbol("vllm", "AsyncEngineArgs").from_cli_args(args)
    usage = compat.symbol("vllm.usage.usage_lib", "UsageContext").OPENAI_API_SERVER
    return engine_args.create_engine_config(usage_context=usage)


def _shortened(message: str) -> str:
    """The lines of an error that say what is wrong: pydantic adds its own input and a link."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("For further information")]
    return "; ".join(told[:4])[:600]


if __name__ == "__main__":
    main(sys.argv[1:])
