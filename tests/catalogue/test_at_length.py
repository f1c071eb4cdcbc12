from made_up_tables import case, default, tuned

from mla_tune.catalogue.at_length import AtLength
from mla_tune.plan.plan import UNTUNED
from mla_tune.shapes import BatchShape
from mla_tune.table import CaseResult, Entry, Lookup

RAGGED = "q1s8k_7q1s1k"
CASES = case(1024, 20.0, 10.0), case(4096, 40.0, 20.0), case(65536, 90.0, 60.0, 0.0)
OF_RAGGED = CaseResult(**dict(case(8192, 50.0, 40.0)) | {"shape": RAGGED})
ENTRY = tuned("8q1s{1k,4k}", 30.0, 15.0, cases=(*CASES, OF_RAGGED))


def at(asked: str, entry: Entry = ENTRY) -> AtLength | None:
    return AtLength.of(Lookup(BatchShape.parse(asked), entry, UNTUNED, 1.0))


def test_a_length_that_was_measured_has_its_own_figures():
    assert at("8q1s4k") == AtLength((CASES[1],), True)
    assert at("8q1s64k") == AtLength((CASES[2],), True)
    assert at(RAGGED) == AtLength((OF_RAGGED,), True)


def test_others_have_those_of_the_lengths_beside_them():
    assert at("8q1s2k") == AtLength((CASES[0], CASES[1]), False)
    assert at("8q1s512") == AtLength((CASES[0],), False)
    assert at("8q1s96k") == AtLength((CASES[2],), False)


def test_an_entry_without_figures_of_single_lengths_has_none():
    assert at("8q1s4k", default("8q1s{1k,4k}", 5.0)) is None
    assert at("q1s9k_7q1s1k") is None
