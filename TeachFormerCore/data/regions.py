"""BraTS: nested regions as exclusive labels for training, and back.

The organisers' values are 1 (necrotic and non-enhancing core), 2 (oedema) and 4 (enhancing tumour); a softmax wants
consecutive classes, so 4 is trained as 3. Whole tumour (WT), tumour core (TC) and enhancing tumour (ET) are unions.
"""

from collections.abc import Mapping

import numpy as np

ORGANISERS = {0: 0, 1: 1, 2: 2, 4: 3}  # the organisers' value -> ours
REGIONS: dict[str, tuple[int, ...]] = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}  # of our values


def from_organisers(label: np.ndarray) -> np.ndarray:
    """The organisers' values 0, 1, 2, 4 as classes 0 to 3, uint8.

    Raises:
        ValueError: another value.
    """
    return _mapped(label, ORGANISERS)


def to_organisers(label: np.ndarray) -> np.ndarray:
    """Classes 0 to 3 as the organisers' values, uint8, for a submission.

    Raises:
        ValueError: another value.
    """
    return _mapped(label, {ours: theirs for theirs, ours in ORGANISERS.items()})


def regions_of(label: np.ndarray, regions: Mapping[str, tuple[int, ...]] = REGIONS) -> dict[str, np.ndarray]:
    """The mask of each region of a label map of classes; masks have its shape."""
    return {name: np.isin(label, values) for name, values in regions.items()}


def label_of(regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The classes of nested regions WT, TC and ET, uint8; what lies in an inner region lies in the outer ones.

    Where a region is not within its outer one the inner one wins, as in the organisers' own evaluation.
    """
    enhancing = regions["ET"].astype(bool)
    core = regions["TC"].astype(bool)
    whole = regions["WT"].astype(bool)
    return np.select([enhancing, core, whole], [3, 1, 2], 0).astype(np.uint8)


def _mapped(label: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    unknown = sorted(set(np.unique(label).tolist()) - set(values))
    if unknown:
        raise ValueError(f"label values {unknown} are none of {sorted(values)}")
    result = np.zeros(label.shape, np.uint8)
    for value, other in values.items():
        result[label == value] = other
    return result
