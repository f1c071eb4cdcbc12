import pytest

from fake_device import ENVIRONMENT, workload
from mla_tune.errors import InputError
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.table import merge
from mla_tune.tuning.existing_table import check_table
from mla_tune.tuning.job import TableJob


@pytest.fixture
def job(tmp_path):
    return TableJob.of(ENVIRONMENT, Setup("TORCH_MLA", MlaDimensions(2)), [workload()], tmp_path)


def test_a_table_that_is_not_there_can_be_added_to(job):
    check_table(job)


def test_a_table_for_another_release_cannot_be_added_to(job):
    other = job.header.model_copy(update={"software": {"torch": "1"}})
    merge(job.path, other, [])
    with pytest.raises(InputError, match="is for software"):
        check_table(job)


def test_a_broken_table_is_found_before_anything_is_measured(job):
    job.path.write_text("entries: [")
    with pytest.raises(InputError, match="not valid YAML"):
        check_table(job)
