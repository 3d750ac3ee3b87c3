"""BraTS is trained as labels and evaluated as regions."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands.evaluate import _parts_to_score, _score_case
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.errors import InputError

LABELS = {"background": 0, "necrotic_core": 1, "oedema": 2, "enhancing_tumour": 3}
REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}


@pytest.fixture
def dataset(tmp_path):
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[1:5, 1:5, 1:5] = 2
    reference[2:4, 2:4, 2:4] = 1
    reference[2, 2, 2:4] = 3
    sitk.WriteImage(sitk.GetImageFromArray(reference), str(tmp_path / "labelsTr" / "a.nii.gz"))
    image = sitk.GetImageFromArray(np.arange(216, dtype=np.float32).reshape(6, 6, 6))
    sitk.WriteImage(image, str(tmp_path / "imagesTr" / "a_0000.nii.gz"))
    description = {"channel_names": {"0": "T1"}, "labels": LABELS, "regions": REGIONS}
    (tmp_path / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return open_dataset(tmp_path)


def test_regions_are_scored_as_unions(dataset):
    """Core and enhancing tumour swapped: wrong as labels, and as ET, but the whole and the core are right."""
    parts = _parts_to_score({name: value for name, value in LABELS.items() if value}, dataset)
    (case,) = dataset.cases
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))
    swapped = np.select([found == 1, found == 3, found == 2], [3, 1, 2], 0).astype(np.uint8)
    channel = {"name": "T1", "modality": "MR", "normalisation": {"kind": "z_score"}, "optional": False}
    predictor = SimpleNamespace(
        card={"name": "m", "channels": [channel]},
        run=lambda images: SimpleNamespace(label=sitk.GetImageFromArray(swapped), notices=[]),
    )
    rows, _, _ = _score_case(case, predictor, {"T1": "T1"}, parts, None, False)
    assert {row.label: row.dice for row in rows["model"]} == {"WT": 1.0, "TC": 1.0, "ET": 0.0}


def test_without_regions_labels_are_scored(dataset):
    plain = SimpleNamespace(regions={}, folder=dataset.folder)
    assert _parts_to_score({"tumour": 1, "node": 2}, plain) == {"tumour": (1,), "node": (2,)}
    with pytest.raises(InputError, match="'WT' of .* values that the model lacks"):
        _parts_to_score({"necrotic_core": 1, "oedema": 2}, dataset)
