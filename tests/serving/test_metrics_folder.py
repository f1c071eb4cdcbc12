import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mla_tune.serving.metrics_folder import inherited_folder

# A program that reads its input until that ends, in the place of one of ours.
ENGINE = """
import os
from mla_tune.serving.metrics_folder import inherited_folder
print(inherited_folder(), flush=True)
os.execvp("cat", ["cat"])
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def engine() -> Iterator[Path]:
    """One that runs, killed at the end; gives its folder."""
    command = [sys.executable, "-c", ENGINE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip())
        process.kill()


def test_the_folder_of_an_engine_that_was_killed_goes_with_the_next_start(temporary: Path) -> None:
    with engine() as running:
        with engine() as other:
            (other / "counter_1.db").touch()
            assert running.is_dir()  # through the start of the other
        assert other.is_dir()
        with engine() as third:
            assert sorted(temporary.iterdir()) == sorted([running, third])


def test_it_is_empty_and_the_users_alone() -> None:
    folder = inherited_folder()
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_only_has_such_a_name_stays(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "mla-tune-metrics-link").symlink_to("elsewhere")
    (temporary / "mla-tune-metrics-file").touch()
    inherited_folder()
    assert len(list(temporary.iterdir())) == 4
