"""Several storages of studies, presented as one that can only be read."""

__all__ = ["MergedStorage"]

import copy
from collections.abc import Callable, Container, Sequence
from typing import Any, Never

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from mla_tune.tuning.study.earlier import TAKEN_OVER

MOST_STORAGES = 10_000


class MergedStorage(BaseStorage):
    """The studies of several storages.

    A study or trial has the number that it has in its storage, times `MOST_STORAGES`, plus the
    position of that storage: numbers stay when more studies and storages come. Studies of earlier
    versions that another one has taken over are left out.

    Args:
        storages: gives the storages as of now, always in the same order; new ones at the end.
    """

    def __init__(self, storages: Callable[[], Sequence[BaseStorage]]) -> None:
        self._storages = storages

    def _of(self, number: int) -> tuple[BaseStorage, int, int]:
        """The storage of a study or trial, its number there, and the position of the storage."""
        local, position = divmod(number, MOST_STORAGES)
        storages = self._storages()
        if position >= len(storages):
            raise KeyError(f"no study or trial {number}")
        return storages[position], local, position

    def get_all_studies(self) -> list[FrozenStudy]:
        found = []
        for position, storage in enumerate(self._storages()):
            studies = storage.get_all_studies()
            gone = {study.user_attrs.get(TAKEN_OVER) for study in studies}
            for study in studies:
                if study.study_name not in gone:
                    study._study_id = study._study_id * MOST_STORAGES + position
                    found.append(study)
        return found

    def get_study_id_from_name(self, study_name: str) -> int:
        for study in self.get_all_studies():
            if study.study_name == study_name:
                return study._study_id
        raise KeyError(f"no study {study_name!r}")

    def get_study_name_from_id(self, study_id: int) -> str:
        storage, local, _ = self._of(study_id)
        return storage.get_study_name_from_id(local)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        storage, local, _ = self._of(study_id)
        return storage.get_study_directions(local)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        storage, local, _ = self._of(study_id)
        return storage.get_study_user_attrs(local)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        storage, local, _ = self._of(study_id)
        return storage.get_study_system_attrs(local)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        storage, local, position = self._of(trial_id)
        return _numbered(storage.get_trial(local), position)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        storage, local, position = self._of(study_id)
        trials = storage.get_all_trials(local, deepcopy=deepcopy, states=states)
        return [_numbered(trial, position) for trial in trials]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The fastest; one that could not be published only where there is no other."""
        trials = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if not trials:
            raise ValueError("no trial is complete yet")
        return min(
            trials, key=lambda trial: (any(c > 0 for c in trial.constraints.values()), trial.value)
        )

    def _refuse(self, *_args: Any, **_more: Any) -> Never:
        raise NotImplementedError("these studies are only read here")

    create_new_study = delete_study = create_new_trial = _refuse
    set_study_user_attr = set_study_system_attr = _refuse
    set_trial_param = set_trial_state_values = set_trial_intermediate_value = _refuse
    set_trial_user_attr = set_trial_system_attr = _refuse


def _numbered(trial: FrozenTrial, position: int) -> FrozenTrial:
    numbered = copy.copy(trial)
    numbered._trial_id = trial._trial_id * MOST_STORAGES + position
    return numbered
