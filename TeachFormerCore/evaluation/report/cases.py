"""The references: prepared cases as volumes, and what a run stored of each.

A dataset of single slices becomes one volume per patient, its slices stacked in the order of their names: so every
figure is one of a volume, and slices are never taken for patients.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError

LoadCase = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A reference.

    Attributes:
        name: of the case, or of the patient where several slices make the volume.
        patient: the unit of the statistics.
        image: normalised, ``(C, z, y, x)``.
        label: ``(z, y, x)``.
        parts: the cases that it is stacked of, in their order.
        spacing: z, y, x in mm; None where single slices are stacked: neither their names nor prepared data tell how far
            apart they are, and some may be missing between them.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray
    parts: tuple[str, ...]
    spacing: tuple[float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The data that all runs of a study share.

    Attributes:
        dataset: its name.
        licence: of the images, for the pictures' credit.
        patients: patient of each case.
        labels: value of each label above 0, by name.
        spacing: x, y, z in mm.
        channels: name and normalisation of each channel, as in the manifest.
        load: image ``(C, z, y, x)`` and label ``(z, y, x)`` of a case.
        regions: unions of label values that are scored instead of the labels, as BraTS has them.
    """

    dataset: str
    licence: str | None
    patients: Mapping[str, str]
    labels: Mapping[str, int]
    spacing: tuple[float, float, float]
    channels: Sequence[Mapping[str, object]]
    load: LoadCase
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def scored(self) -> dict[str, tuple[int, ...]]:
        """The label values of each part that is scored, by its name."""
        return dict(self.regions) or {name: (value,) for name, value in self.labels.items()}

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """In the order of the arrays."""
        x, y, z = self.spacing
        return z, y, x

    @property
    def classes(self) -> int:
        """Background included."""
        return len(self.labels) + 1

    def cases_of(self, patients: Sequence[str]) -> list[str]:
        """The cases of some patients, sorted."""
        wanted = set(patients)
        return sorted(case for case, patient in self.patients.items() if patient in wanted)

    def volumes(self, cases: Sequence[str]) -> Iterator[Volume]:
        """The volumes of some cases, one after the other, those of one patient's slices stacked."""
        slices: dict[tuple[str, tuple[int, ...]], dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        for case in cases:
            image, label = self.load(case)
            if label.shape[0] == 1:
                slices.setdefault((self.patients[case], label.shape[1:]), {})[case] = image, label
            else:
                yield Volume(
                    name=case,
                    patient=self.patients[case],
                    image=image,
                    label=label,
                    parts=(case,),
                    spacing=self.spacing_zyx,
                )
        for (patient, shape), parts in slices.items():
            # A patient whose slices differ in size is one volume per size.
            unique = sum(other == patient for other, _ in slices) == 1
            yield Volume(
                name=patient if unique else f"{patient} ({shape[0]} x {shape[1]})",
                patient=patient,
                image=np.concatenate([image for image, _ in parts.values()], axis=1),
                label=np.concatenate([label for _, label in parts.values()]),
                parts=tuple(parts),
                spacing=None,
            )


def read_prediction(folder: Path, volume: Volume, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """What a run stored of a volume: label ``(z, y, x)`` uint8 and, for `probabilities`, ``(classes - 1, z, y, x)``.

    Raises:
        InputError: a file that is missing, damaged or of another image.
    """
    stored = [_read_case(folder / f"{part}.safetensors", classes) for part in volume.parts]
    fits = all(label.shape[1:] == volume.label.shape[1:] for label, _ in stored)
    if not fits or sum(len(label) for label, _ in stored) != len(volume.label):
        raise InputError(
            f"{folder} holds {volume.name} in another size than the prepared data ({volume.label.shape} voxels): give "
            "the data that the run was trained on with --data."
        )
    return np.concatenate([label for label, _ in stored]), np.concatenate([logits for _, logits in stored], axis=1)


def foreground_logits(probabilities: np.ndarray) -> np.ndarray:
    """``log(p_k / p_0)`` of the classes above 0, ``(classes - 1, *S)``: how probabilities ``(classes, *S)`` are stored.

    Even in float16 these keep the order of what is nearly certain either way, which decides a candidate's rank; of two
    classes, a probability is then off by 2e-4 at most.
    """
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logarithms[1:] - logarithms[:1]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Those of all classes, ``(classes, *S)`` float32, of stored `foreground_logits`; the least have full precision.

    Older runs stored the probabilities of the classes above 0 in uint8, 255 for 1, in which all above 0.998 are alike.
    """
    if logits.dtype == np.uint8:
        scaled = logits.astype(np.float32) / 255
        return np.concatenate([np.clip(1 - scaled.sum(axis=0, keepdims=True), 0, None), scaled])
    every = np.concatenate([np.zeros_like(logits[:1]), logits]).astype(np.float32)
    every = np.exp(every - every.max(axis=0))
    return every / every.sum(axis=0)


def _read_case(file: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
        label, logits = arrays["label"], arrays["logits" if "logits" in arrays else "foreground"]
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: copy the whole run folder, or train the run again.") from error
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): copy it again, or train the run again.") from error
    fits = label.ndim == 3 and logits.shape == (classes - 1, *label.shape) and label.max(initial=0) < classes
    if not fits or not np.isfinite(logits).all():
        raise InputError(f"{file} is not a prediction of {classes} classes: train the run again.")
    return label, logits
