"""Which cases a model has seen, from its card: a score on those says little about new patients."""

from typing import Any


def was_seen(patient: str, dataset: str, training: dict[str, Any]) -> bool:
    """Whether the model was trained on a patient, or tuned or chosen on one.

    A model of fold ``all`` has seen every patient of its dataset, also where its card lists none. Other datasets' it
    has not: a shipped model may well be tested on new patients.

    Args:
        patient: as `Case.patient`.
        dataset: the name of the patient's dataset.
        training: the card's ``training``.
    """
    roles = ["training", "tuning", *(["validation"] if training.get("chosen_on_validation") else [])]
    listed = {str(name) for role in roles for name in training.get(f"{role}_patients") or ()}
    if listed or training.get("fold") != "all":
        return patient in listed
    trained_on = training.get("dataset")
    return not trained_on or str(trained_on).casefold() == dataset.casefold()
