"""The actor's class, in this process."""

import pytest

import mla_tune
from mla_tune.errors import InputError, UnavailableError
from mla_tune.measuring.worker_client import Limits
from mla_tune.tuning.pool.remote_worker import RemoteWorker
from torch_mla_cases import SETUP


@pytest.fixture
def worker():
    remote = RemoteWorker()
    yield remote
    remote._held.close()


def test_it_says_what_it_is_on_and_answers_for_it(worker):
    kind, found = worker.start("cpu", Limits())
    assert kind == "done"
    version, device, identity, environment, notices = found
    assert (version, device, notices) == (mla_tune.__version__, "cpu", ())
    assert identity.startswith("cpu-")
    assert environment.compute_capability is None
    assert worker.ask("open", SETUP) == ("done", None)
    kind, free = worker.ask("free_bytes")
    assert (kind, free > 0) == ("done", True)


def test_a_device_that_another_run_has_is_an_answer_and_no_exception(worker):
    assert worker.start("cpu", Limits())[0] == "done"
    other = RemoteWorker()
    kind, error = other.start("cpu", Limits())
    other._held.close()
    assert kind == "failed"
    assert isinstance(error, InputError)
    assert "in use by another run" in error.what


def test_what_the_bench_raises_is_an_answer(worker):
    worker.start("cpu", Limits())
    kind, error = worker.ask("open", SETUP.__class__("FLASH_ATTN_MLA", SETUP.model))
    assert kind == "failed"
    assert isinstance(error, UnavailableError) or "cannot open" in error.what
