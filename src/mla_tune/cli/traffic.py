"""The commands that make shapes files: of an engine, and of what one has served or would serve."""

__all__ = ["shapes"]

from pathlib import Path

import click

from mla_tune.cli.completion import complete_model
from mla_tune.cli.options import PATH, POSITIVE, VLLM_COMMAND, Finite, size

PATIENCE_S = 600.0
"""For vLLM's imports and its look at a model, which take seconds on an idle machine."""


@click.group()
def shapes() -> None:
    """Make shapes files."""


@shapes.command("from-record")
@click.argument("record", type=PATH)
@click.option(
    "--table",
    "tables",
    type=PATH,
    multiple=True,
    help="Put the shapes that this table misses first; may repeat.",
)
def from_record(record: Path, tables: tuple[Path, ...]) -> None:
    """Turn what MLA_TUNE_RECORD wrote into a weighted shapes file, on standard output."""
    from mla_tune.traffic.shapes import shapes_from_traffic

    click.echo(shapes_from_traffic(record, tables), nl=False)


@shapes.command("from-trace")
@click.argument("trace", type=PATH)
@click.option(
    "--max-num-seqs",
    type=POSITIVE,
    default=256,
    show_default=True,
    help="Requests of a step, at most.",
)
@click.option(
    "--max-model-len",
    callback=size,
    default="128k",
    show_default=True,
    metavar="TOKENS",
    help="Longer requests are left out.",
)
@click.option(
    "--step-ms",
    type=Finite(0.1, 60_000),
    default=30.0,
    show_default=True,
    help="Milliseconds that a decode step takes: the longer, the more requests meet in one.",
)
@click.option(
    "--model",
    default="deepseek-v3",
    show_default=True,
    shell_complete=complete_model,
    help="The shapes file's model; a trace does not say it.",
)
def from_trace(
    trace: Path, max_num_seqs: int, max_model_len: int, step_ms: float, model: str
) -> None:
    """Turn a trace of requests into a weighted shapes file, on standard output.

    The trace is a CSV file with the columns TIMESTAMP, ContextTokens and GeneratedTokens, as
    Azure publishes. It is served by a simple model of an engine: every decode step takes
    the same time, prefill none, and memory is never short.
    """
    from mla_tune.traffic.batching import SimulatedEngine
    from mla_tune.traffic.trace_shapes import shapes_from_trace

    engine = SimulatedEngine(max_num_seqs, max_model_len, step_ms)
    click.echo(shapes_from_trace(trace, engine, model), nl=False)


@shapes.command("from-engine")
@VLLM_COMMAND
def from_engine(command: tuple[str, ...]) -> None:
    """Turn a vLLM command line into a shapes file of its engine, on standard output.

    \b
      mla-tune shapes from-engine -- vllm serve MODEL …

    vLLM's own parser reads the arguments, and its own configuration says what the engine
    captures; no weights are loaded.
    """  # noqa: D301 - \b is click's mark for text not to be wrapped
    from mla_tune.serving.engine_process import ask_vllm
    from mla_tune.serving.engine_shapes import shapes_text
    from mla_tune.serving.vllm_command import VllmCommand

    given = VllmCommand.of(command)
    click.echo(shapes_text(ask_vllm(given, PATIENCE_S)[0], str(given)), nl=False)
