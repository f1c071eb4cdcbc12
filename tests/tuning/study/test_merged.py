import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from mla_tune.tuning.study.earlier import TAKEN_OVER
from mla_tune.tuning.study.merged import MergedStorage


@pytest.fixture
def storages():
    """Two storages with studies of the same numbers."""
    found = [optuna.storages.InMemoryStorage() for _ in range(2)]
    for storage, names in zip(found, [("a", "b"), ("c",)], strict=True):
        for name in names:
            study = optuna.create_study(study_name=name, storage=storage)
            study.set_user_attr("of", name)
            study.set_metric_names(["latency_us"])
            for value in (3.0, 1.0, 2.0):
                study.add_trial(
                    optuna.trial.create_trial(
                        value=value,
                        params={"x": int(value)},
                        distributions={"x": optuna.distributions.IntDistribution(1, 3)},
                        constraints={"slower": 1.0 if value == 1.0 else -1.0},
                    )
                )
    return found


def test_every_study_and_trial_has_a_number_of_its_own(storages):
    merged = MergedStorage(lambda: storages)
    studies = {study.study_name: study._study_id for study in merged.get_all_studies()}
    assert list(studies) == ["a", "b", "c"]
    trials = [t._trial_id for id_ in studies.values() for t in merged.get_all_trials(id_)]
    assert len(set(trials)) == 9
    for name, study_id in studies.items():
        assert merged.get_study_id_from_name(name) == study_id
        assert merged.get_study_name_from_id(study_id) == name
        assert merged.get_study_user_attrs(study_id) == {"of": name}
        assert merged.get_study_directions(study_id) == [StudyDirection.MINIMIZE]
        for trial in merged.get_all_trials(study_id):
            assert merged.get_trial(trial._trial_id).params == trial.params


def test_optuna_reads_a_study_from_it(storages):
    study = optuna.load_study(study_name="c", storage=MergedStorage(lambda: storages))
    assert study.metric_names == ["latency_us"]
    assert [trial.value for trial in study.trials] == [3.0, 1.0, 2.0]
    assert study.get_trials(states=(TrialState.PRUNED,)) == []
    assert set(optuna.importance.get_param_importances(study)) == {"x"}


def test_the_best_trial_is_one_that_can_be_published(storages):
    merged = MergedStorage(lambda: storages)
    assert merged.get_best_trial(0).value == 2.0


def test_numbers_stay_when_storages_come(storages):
    present = storages[:1]
    merged = MergedStorage(lambda: present)
    before = [study._study_id for study in merged.get_all_studies()]
    present.append(storages[1])
    assert [study._study_id for study in merged.get_all_studies()][:2] == before


def test_a_study_that_another_has_taken_over_is_left_out(storages):
    optuna.load_study(study_name="b", storage=storages[0]).set_user_attr(TAKEN_OVER, "a")
    merged = MergedStorage(lambda: storages)
    assert [study.study_name for study in merged.get_all_studies()] == ["b", "c"]


def test_nothing_can_be_written(storages):
    merged = MergedStorage(lambda: storages)
    for write in (
        lambda: merged.delete_study(0),
        lambda: merged.set_study_user_attr(0, "a", 1),
        lambda: optuna.create_study(storage=merged),
    ):
        with pytest.raises(NotImplementedError):
            write()


def test_an_unknown_number_is_a_key_error(storages):
    merged = MergedStorage(lambda: storages)
    for number in (5, 50_000):
        with pytest.raises(KeyError):
            merged.get_study_name_from_id(number)
