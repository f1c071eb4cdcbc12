"""The command that lists the backends."""

__all__ = ["backends"]

import click

from mla_tune.cli.options import DEVICE


@click.command()
@DEVICE
def backends(device: str) -> None:
    """List the backends, their knobs, and whether they run here."""
    from mla_tune.registry import BACKENDS
    from mla_tune.tuning.device_bench import found_environment

    environment = found_environment(device)
    click.echo(f"{environment.device_name}: {environment.software}")
    for backend in BACKENDS:
        reason = backend.unavailable(environment)
        runs = "runs here" if reason is None else f"does not run here: {reason}"
        click.echo(f"{backend.name}: {runs}")
        click.echo(f"  knobs: {', '.join(backend.knobs) or 'none'}")
        click.echo(
            f"  modes: {', '.join(backend.modes)}; KV cache: {', '.join(backend.kv_cache_dtypes)}"
        )
