from dataclasses import replace

from fake_device import DEFAULT, splits
from mla_tune.tuning.study.subject import LONGEST_SHAPE, Subject, earlier_study_name
from modelled_table import HEADER

PLANS = [DEFAULT, splits(1)]
SUBJECT = Subject.of(HEADER, "0123abc")
KEY = "32q1s{1k,4k}+{64k}"


def test_a_name_says_what_the_study_is_of():
    name = SUBJECT.study_name(KEY, PLANS)
    heads = HEADER.model["num_q_heads"]
    title = f"{HEADER.backend} {heads} heads auto {HEADER.engine.mode} 32q1s{{1k,4k}} #"
    assert name.startswith(title)
    assert name == Subject.of(HEADER, "0123abc").study_name(KEY, list(PLANS))


def test_what_differs_has_a_name_of_its_own():
    others = [
        SUBJECT.study_name("32q1s{1k,4k}", PLANS),
        SUBJECT.study_name(KEY, [DEFAULT]),
        Subject.of(HEADER, "another").study_name(KEY, PLANS),
        replace(SUBJECT, facts={**SUBJECT.facts, "heads": 1}).study_name(KEY, PLANS),
    ]
    assert len({SUBJECT.study_name(KEY, PLANS), *others}) == 5


def test_a_name_stays_readable_for_a_batch_of_many_lengths():
    key = "_".join(f"1q1s{length}" for length in range(1, 300))
    name = Subject().study_name(key, PLANS)
    assert len(name) < LONGEST_SHAPE + 12
    assert "…" in name


def test_facts_are_text_and_numbers():
    assert {type(fact) for fact in SUBJECT.facts.values()} == {str, int}
    assert SUBJECT.facts["device"] == HEADER.device.name
    assert "vllm 0" in str(SUBJECT.facts["software"])


def test_earlier_versions_named_studies_by_workload_and_space():
    assert earlier_study_name("8q1s1k", PLANS).startswith("8q1s1k#")
