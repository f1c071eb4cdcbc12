"""The command's entry, which says in one line what an image installed for serving alone lacks.

A deployment installs the wheel with ``--no-deps`` beside vLLM's own packages, so that any import
of the command may fail.
"""

__all__ = ["main"]

import importlib.util
import sys

from mla_tune.errors import INTERRUPTED, EnvironmentFailure

# The modules that the dependencies of pyproject.toml are imported by.
PACKAGES = {
    **{name: name for name in ("click", "filelock", "numpy", "optuna", "platformdirs", "psutil")},
    **{name: name for name in ("packaging", "pydantic", "rich", "scipy", "torch")},
    "pynvml": "nvidia-ml-py",
    "yaml": "pyyaml",
}


def main() -> None:
    """Run the command."""
    try:
        from mla_tune.cli.commands import main as run_command

        run_command()
    except KeyboardInterrupt:  # within its imports; later it is the command's to tell
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        package = PACKAGES.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        failure = _not_installed(package)
        sys.stderr.write(f"mla-tune: {failure}\n")
        sys.exit(failure.exit_code)


def _not_installed(package: str) -> EnvironmentFailure:
    lacking = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    others = [name for name in lacking if name != package]
    also = f" (tuning also needs {' '.join(others)})" if others else ""
    return EnvironmentFailure(
        f"this command needs the package {package}, which is not installed here; serving does not",
        remedy=f"pip install {package}{also}",
    )


if __name__ == "__main__":
    main()
