"""The ``dataset.json`` of a conversion, from the archive and the record of what was converted."""

from collections.abc import Mapping
from typing import Any

from .archive import Archive
from .record import Record

ENDING = ".nii.gz"


def targets_of(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The target cases of a line of the record, each with its split."""
    return [{**target, "split": line["split"]} for target in line["targets"]]


def describe(archive: Archive, name: str, record: Record) -> dict[str, Any]:
    """``dataset.json``, from the archive and what was converted."""
    lines = [record.cases[case] for case in sorted(record.cases)]
    targets = [target for line in lines for target in targets_of(line)]
    labels = archive.labels
    if labels is None:
        values = sorted({value for target in targets for value in target["labels"]} - {0})
        labels = {"background": 0} | {f"label_{value}": value for value in values}
    description: dict[str, Any] = {
        "channel_names": {str(number): channel for number, channel in enumerate(archive.channels)},
        "labels": dict(labels),
        "numTraining": sum(target["split"] == "Tr" for target in targets),
        "numTest": sum(target["split"] == "Ts" for target in targets),
        "file_ending": ENDING,
        "name": name,
        "licence": archive.licence,
        "reference": archive.reference,
        "converted": {"challenge": archive.challenge, "options": dict(archive.options)},
        **archive.description,
    }
    if archive.patient_pattern:
        description["patient_pattern"] = archive.patient_pattern
    elif patients := {t["name"]: line["patient"] for line in lines if line["patient"] for t in line["targets"]}:
        description["patients"] = patients
    if archive.centre_pattern:
        description["centre_pattern"] = archive.centre_pattern
    elif centres := {line["patient"] or line["case"]: line["centre"] for line in lines if line["centre"]}:
        description["centres"] = centres
    return description
