"""A campaign over two workloads on the fake device, and what it leaves behind."""

from pathlib import Path

from tuner_cases import trials

from fake_device import DEFAULT, ENVIRONMENT, FakeBench, splits, workload
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header, TableFile
from mla_tune.tuning import reporters
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal, Subject

LATENCIES = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 90.0, splits(8): 70.0, splits(16): 98.0}
DIES = splits(8)
WORKLOADS = (workload("8q1s1k"), workload("8q1s2k"))


class SilentReporter(reporters.SilentReporter):
    """Keeps what it is told about the run as a whole."""

    def __init__(self):
        self.decisions = []
        self.nominations = []
        self.renewals = []
        self.notices = []
        self.errors = []
        self.abandoned = []
        self.stayed = []
        self.known = []

    def skipped(self, what):
        self.notices.append(what)

    def kept(self, workload, doubt):
        del doubt
        self.stayed.append(str(workload))

    def remembered(self, workload, measured):
        self.known.append((str(workload), measured))

    def decided(self, job, workload, entry):
        del job
        self.decisions.append((str(workload), entry.plan))

    def nominated(self, job, workload, entry):
        del job
        self.nominations.append((str(workload), entry.plan))

    def renewed(self, job, num_nominees):
        del job
        self.renewals.append(num_nominees)

    def failed(self, job, workload, error):
        del job
        self.errors.append((str(workload), error))

    def given_up(self, job, workloads, error):
        self.abandoned.append((job.path.stem, len(workloads), error))

    def unpublished(self, job, entries, error):
        del job
        self.errors += [(entry.shape, error) for entry in entries]


def table_job(folder: Path, heads: int = 2, workloads=WORKLOADS) -> TableJob:
    model = MlaDimensions(heads)
    header = Header.of(ENVIRONMENT, "TORCH_MLA", model, "auto", "eager", 4096)
    path = folder / f"heads={heads}.yaml"
    return TableJob(Setup("TORCH_MLA", model), tuple(workloads), header, path)


def run(folder: Path, bench: FakeBench, jobs=None, processes=1, **more) -> Campaign:
    settings = Settings(confirmation_rounds=16, processes=processes)
    campaign = Campaign(bench, folder / "study", settings, SilentReporter(), **more)
    campaign.run(jobs or [table_job(folder)])
    return campaign


def bench(**more) -> FakeBench:
    return FakeBench(LATENCIES, race_faults={DIES: "died"}, **more)


def screened(measured: FakeBench) -> set:
    """(workload, plan) of every trial."""
    return {(key, plans[-1]) for key, plans in trials(measured)}


def outcomes(folder: Path) -> dict:
    """What the journal holds, by workload."""
    paths = list((folder / "study").glob("*.journal"))
    if not paths:
        return {}
    subject = Subject.of(table_job(folder).header, ENVIRONMENT.software_digest)
    journal = Journal(paths[0], subject)
    try:
        return {str(w): journal.outcomes(str(w), tuple(LATENCIES)) for w in WORKLOADS}
    finally:
        journal.close()


def assert_goes_on_where_it_was(folder: Path) -> None:
    """Finish a run that ended early: nothing lost, nothing measured twice, the same table."""
    told = outcomes(folder)
    again = bench()
    run(folder, again)
    finished = outcomes(folder)
    for key, before in told.items():
        assert finished[key][: len(before)] == before
        for outcome in before:
            assert (key, outcome.plan) not in screened(again)
    for tried in finished.values():
        assert {trial.plan for trial in tried} == set(LATENCIES)
        assert len(tried) == len(LATENCIES)
    table = TableFile.load(folder / "heads=2.yaml")
    assert [(entry.shape, entry.plan) for entry in table.entries] == [
        ("8q1s1k", splits(2)),
        ("8q1s2k", splits(2)),
    ]
    assert all("num_kv_splits=8 failed" in entry.note for entry in table.entries)
