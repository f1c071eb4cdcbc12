from bench_commands import MAIN, least_s, made_up
from mla_tune.table import TableFile


def test_the_tables_are_large_and_can_be_compared(tmp_path):
    one, other = (TableFile.load(path) for path in made_up(tmp_path, 300))
    assert [entry.shape for entry in one.entries] == [entry.shape for entry in other.entries]
    assert len({entry.shape for entry in one.entries}) == 300


def test_a_command_that_runs_is_timed():
    assert 0 < least_s([*MAIN, "--version"], 1) < 60
