"""The command that lists the backends."""

__all__ = ["backends"]

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import DEVICE


@click.command()
@DEVICE
@JSON
def backends(device: str, as_json: bool) -> None:
    """List the backends, their knobs, and whether they run here."""
    from mla_tune.registry import BACKENDS
    from mla_tune.tuning.device_bench import found_environment

    environment = found_environment(device)
    if as_json:
        print_json(
            {
                "device": environment.device_name,
                "software": environment.software,
                "backends": [
                    {
                        "name": backend.name,
                        "why_not": backend.unavailable(environment),
                        "knobs": list(backend.knobs),
                        "modes": list(backend.modes),
                        "kv_cache_dtypes": list(backend.kv_cache_dtypes),
                    }
                    for backend in BACKENDS
                ],
            }
        )
        return
    software = (f"{name} {version}" for name, version in environment.software.items())
    click.echo(f"{environment.device_name}: {', '.join(software)}")
    for backend in BACKENDS:
        reason = backend.unavailable(environment)
        runs = "runs here" if reason is None else f"does not run here: {reason}"
        click.echo(f"{backend.name}: {runs}")
        click.echo(f"  knobs: {', '.join(backend.knobs) or 'none'}")
        click.echo(
            f"  modes: {', '.join(backend.modes)}; KV cache: {', '.join(backend.kv_cache_dtypes)}"
        )
