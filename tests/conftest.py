"""Fixtures that several test files share."""

import importlib.metadata
import importlib.util
import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace

# Two threads of a test beside a worker of the same machine measure each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What vLLM imports for quantized weights starts two processes in the background wherever it is
# imported, to build what needs CUDA: 12 s of a core each time, and without CUDA they fail.
os.environ.setdefault("HUMMING_DISABLE_PARALLEL_BUILD", "1")
# A shell's background job has it ignored, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

from fake_device import FakeBench, tuner_for
from mla_tune.device.lock import FOLDER_VARIABLE
from mla_tune.measuring import worker_process
from mla_tune.table import Entry, Header, merge
from preloaded import PreloadedContext
from tabled_engine import UNGUARDED

# Torch and the file system are shared with whatever else the machine does.
settings.register_profile("mla-tune", deadline=None, max_examples=60)
settings.load_profile("mla-tune")


def pytest_configure(config):
    """Say which vLLM is tested, and refuse another than the one that was asked for."""
    del config
    wanted = os.environ.get("MLA_TUNE_TESTS_VLLM")
    if wanted is not None and installed_vllm() != wanted:
        pytest.exit(f"the tests are for vLLM {wanted}, found {installed_vllm()}", returncode=4)


def pytest_report_header():
    spec = importlib.util.find_spec("vllm")
    return f"vLLM: {installed_vllm()}" + (f" at {spec.origin}" if spec else "")


def installed_vllm():
    """The version whose files an import finds; of two that are laid over each other, the first."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return "none"
    folder = Path(spec.origin).parents[1]
    here = importlib.metadata.distributions(name="vllm", path=[str(folder)])
    return next((found.version for found in here), f"of no version, at {folder}")


@pytest.fixture(scope="session", autouse=True)
def _own_locks(tmp_path_factory):
    """Locks of devices of its own for each process of tests: side by side they measure nothing."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="module")
def preloaded_workers():
    """Has the workers that this process starts be there in a fraction of the time.

    Not for tests of the start itself, in ``test_worker_process.py``.
    """
    context = PreloadedContext()
    with pytest.MonkeyPatch.context() as patched:
        stand_in = SimpleNamespace(get_context=lambda _method: context)
        patched.setattr(worker_process, "multiprocessing", stand_in)
        yield


@pytest.fixture
def make_tuner(tmp_path):
    """A tuner over a fake device, with its journal and quarantine in a folder of its own."""
    journals = []

    def make(bench: FakeBench, **settings):
        tuner = tuner_for(bench, tmp_path / "study", **settings)
        journals.append(tuner.journal)
        return tuner

    yield make
    for journal in journals:
        journal.close()


@pytest.fixture
def write(tmp_path):
    """Write a text file and return its path."""

    def write_text(text: str, name: str = "shapes.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_text


@pytest.fixture
def write_table(tmp_path):
    """Write a table and return its path; `tabled_engine.WriteTable` is its type."""

    def write_entries(header: Header, *entries: Entry, name: str | None = None):
        path = tmp_path / (name or f"{header.backend}-{header.engine.mode}.yaml")
        if header.engine.mode == "eager":
            # Guards are a graph's.
            entries = tuple(entry.model_copy(update=UNGUARDED) for entry in entries)
        merge(path, header, entries)
        return path

    return write_entries


@pytest.fixture
def messages(monkeypatch):
    """What is logged inside of vLLM, as lines, whatever vLLM has done to the logging."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(f"{record.levelname} {record.getMessage()}")

    logger = logging.getLogger("vllm.mla_tune")
    monkeypatch.setattr(logger, "handlers", [Keeper()])
    monkeypatch.setattr(logger, "disabled", False)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield said
    logger.setLevel(level)
