"""Which tables a change of the software is a reason to tune anew."""

from dataclasses import replace

import pytest
from night_cases import SETTINGS, SHAPES, FakeGpu, night

from fake_device import ENVIRONMENT
from mla_tune.nightly.changes import software_changes
from mla_tune.registry import BACKENDS
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions, Workload
from mla_tune.table import TableFile
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.reporters import SilentReporter

NAMES = ("TRITON_MLA", "FLASH_ATTN_MLA")
PARTS = {name: set(BACKENDS[name].decided_by("eager")) for name in NAMES}
H100 = replace(
    ENVIRONMENT,
    device_name="NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    software={"vllm": "0.33.0", "torch": "2.11.0", "triton": "3.6.0", "driver": "580.1"},
    digests=dict.fromkeys(sorted(set.union(*PARTS.values())), "aaaa"),
)


class Hopper(FakeGpu):
    """A fake H100, on which tables of vLLM's backends are measured."""

    def job(self, file, folder):
        return job_of(self.environment, folder, file.header.backend)


def job_of(environment, folder, backend):
    setup = Setup(backend, MlaDimensions(16))
    workloads = [Workload.parse(shape) for shape in SHAPES[:4]]
    return TableJob.of(environment, setup, workloads, folder)


@pytest.fixture
def tables(tmp_path):
    """One of each backend, tuned alike."""
    site = Hopper(environment=H100)
    (tmp_path / "tables").mkdir()
    jobs = [job_of(H100, tmp_path / "tables", name) for name in NAMES]
    Campaign(site.bench, tmp_path / "first", SETTINGS, SilentReporter()).run(jobs)
    return {job.header.backend: job.path for job in jobs}


def test_a_changed_digest_of_one_backend_tunes_its_table_alone(tables, tmp_path):
    changed = replace(H100, digests=H100.digests | {"triton_decode_attention.py": "bbbb"})
    before = {name: path.read_bytes() for name, path in tables.items()}
    found = {outcome.path: outcome for outcome in night(Hopper(2, changed), tmp_path).run()}
    tuned = found[tables["TRITON_MLA"]]
    assert tuned.reasons == ["triton_decode_attention.py aaaa → bbbb"]
    assert (tuned.num_looked, tuned.num_tuned) == (0, 4)
    other = found[tables["FLASH_ATTN_MLA"]]
    assert (other.reasons, other.num_tuned) == ([], 0)
    after = {name: path.read_bytes() for name, path in tables.items()}
    assert after["FLASH_ATTN_MLA"] == before["FLASH_ATTN_MLA"]
    assert "triton_decode_attention.py: bbbb" in after["TRITON_MLA"].decode()
    again = night(Hopper(3, changed), tmp_path, 1).run()
    assert [outcome.num_tuned for outcome in again] == [0, 0]


def test_a_part_of_both_tunes_both(tables):
    changed = replace(H100, digests=H100.digests | {"mla_attention.py": "bbbb"})
    for path in tables.values():
        assert list(software_changes(TableFile.load(path), changed)) == [
            "mla_attention.py aaaa → bbbb"
        ]


def test_a_driver_is_a_reason_for_all(tables):
    newer = replace(H100, software=H100.software | {"driver": "590.1"})
    for path in tables.values():
        assert list(software_changes(TableFile.load(path), newer)) == ["driver 580.1 → 590.1"]


def test_triton_is_a_reason_for_what_it_compiles(tables):
    newer = replace(H100, software=H100.software | {"triton": "3.7.0"})
    found = {n for n, p in tables.items() if list(software_changes(TableFile.load(p), newer))}
    assert found == {"TRITON_MLA"}
