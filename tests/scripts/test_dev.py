"""What `scripts/dev.py` says while it installs; what it runs is CI itself."""

import threading

import pytest

from dev import REPORT, PipSteps, signs_of_life
from mla_tune.cli.commands import command

WHEEL = "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Looking in links: /opt/wheels\n", "2 packages found"),
        ("  Downloading torch-2.13.0.whl.metadata (30 kB)\n", "2 packages found"),
        (f"Downloading {WHEEL} (880 MB)\n", f"2 packages found; downloads {WHEEL} (880 MB)"),
        (
            f"Downloading https://a.b/c/{WHEEL} (9 MB)\n",
            f"2 packages found; downloads {WHEEL} (9 MB)",
        ),
        ("Collecting sympy>=1.13 (from torch)\n", "3 packages found"),
        ("Installing build dependencies: started\n", "2 packages found"),
        ("Installing collected packages: mpmath, sympy, torch\n", "installs 3 packages"),
    ],
)
def test_a_step_of_pip_is_named(line, told):
    steps = PipSteps()
    assert str(steps) == "asks the index"
    for before in ("Collecting click<9,>=8.1\n", "Collecting torch==2.13.0\n"):
        steps.see(before)
    steps.see(line)
    assert str(steps) == told


def test_it_says_what_it_does_while_pip_is_silent(capsys):
    twice = threading.Semaphore(0)

    def told():
        twice.release()
        return "installs 3 packages"

    with signs_of_life(told, seconds=0.01):
        assert twice.acquire(timeout=60)
        assert twice.acquire(timeout=60)
    assert capsys.readouterr().out.startswith("  installs 3 packages\n  installs 3 packages\n")


def test_the_command_that_the_quickstart_ends_with_is_one():
    name, *arguments = REPORT
    context = command.commands[name].make_context(name, arguments)
    assert str(context.params["out"]) == "build/report.html"
