"""HECKTOR 2021: the whole chain, what is refused, the paper's numbers."""

import json
from collections import Counter

import archives
import numpy as np
import pytest

from TeachFormerCore.data.convert import hecktor21
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.convert.held_out import draw_test, share
from TeachFormerCore.errors import InputError


def test_hecktor_to_check_split_and_prepare(tmp_path, cli):
    """The whole chain by the command line; the source stays as it was."""
    source, dst = tmp_path / "hecktor2021 train", tmp_path / "HECKTOR21"
    archives.hecktor(source, {name: {} for name in archives.CASES}, ending="_ct_gtvt.nii.gz", box_mm=16)
    before = archives.state(source)
    done = cli("data", "convert", "hecktor21", source, dst)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 cases converted" in done.stdout
    assert "6 for training, 2 for testing" in done.stdout
    assert archives.state(source) == before
    assert not list(tmp_path.glob(".*converting"))
    assert archives.array(dst, "imagesTr", "CHUM002_0000").dtype == np.int16
    pet = archives.array(dst, "imagesTr", "CHUM002_0001")
    assert pet.dtype == np.float32
    assert (pet != np.rint(pet)).any()  # SUV is not cut to whole numbers
    assert set(np.unique(archives.array(dst, "labelsTr", "CHUM002"))) == {0, 1}
    assert {name[:4] for name in archives.names(dst, "labelsTr")}.isdisjoint(
        name[:4] for name in archives.names(dst, "labelsTs")
    )
    checked = cli("data", "check", dst, "--json")
    assert checked.returncode == 0, checked.stdout
    report = json.loads(checked.stdout)
    assert (report["cases"], report["test_cases"], report["faults"]) == (6, 2, 0)
    split = cli("data", "split", dst, "--output", tmp_path / "splits.json", "--folds", "3")
    assert split.returncode == 0, split.stderr
    for fold in json.loads((tmp_path / "splits.json").read_text(encoding="utf-8")):
        assert {name[:4] for name in fold["train"]}.isdisjoint(name[:4] for name in fold["val"])
    prepared = cli("data", "prepare", dst, "--channels", "CT,PET", "--spacing", "2,2,2")
    assert prepared.returncode == 0, prepared.stderr
    assert "6 cases" in prepared.stdout


def test_what_hecktor_refuses_and_tells(tmp_path):
    source = tmp_path / "src"
    archives.hecktor(source, {"CHUM001": {}, "CHUM002": {}, "CHUM003": {"label": False}}, box_mm=12)
    table = source / "hecktor2021_bbox_training.csv"
    rows = table.read_text(encoding="utf-8").splitlines()
    rows[1] = "CHUM001,500,512,500,512,500,512"  # far away
    table.write_text("\n".join(rows), encoding="utf-8-sig")
    outcome = convert(hecktor21.archive(source, test="none"), tmp_path / "dst")
    assert "lies outside of" in outcome.failed["CHUM001"]
    assert archives.names(tmp_path / "dst", "imagesTs") == ["CHUM003_0000", "CHUM003_0001"]  # no label: a test case
    assert ("CHUM002", "its box is not 144 mm long: 12 x 12 x 12 voxels") in outcome.notes
    assert hecktor21.archive(source).left_out == ["1 cases without a label (with --test none they become imagesTs)"]
    table.write_text("PatientID,a\nCHUM001,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="needs PatientID, x1, x2"):
        hecktor21.archive(source)
    table.unlink()
    (source / "resampled").mkdir()
    copy = source / "resampled" / "CHUM002_ct.nii.gz"
    copy.write_bytes((source / "hecktor_nii" / copy.name).read_bytes())
    with pytest.raises(InputError, match="two cases with one name"):
        hecktor21.archive(source)
    copy.unlink()
    with pytest.raises(InputError, match="--boxes"):
        hecktor21.archive(source)
    with pytest.raises(InputError, match="expected hecktor_nii"):
        hecktor21.archive(tmp_path / "dst" / "labelsTr")


def test_the_papers_numbers():
    """180 + 44 of HECKTOR 2021 with its real centres, 180 + 40 of PI-CAI with patients of several studies."""
    sizes = {"CHGJ": 55, "CHMR": 18, "CHUM": 56, "CHUP": 23, "CHUS": 72}
    cases = [f"{centre}{n:03d}" for centre, count in sizes.items() for n in range(count)]
    centres = {case: case[:4] for case in cases}
    test = draw_test({case: case for case in cases}, share(224, part=44, whole=224), centres=centres)
    by_centre = Counter(centres[case] for case in test)
    assert len(test) == 44
    assert (by_centre["CHMR"], by_centre["CHUP"]) == (18, 23)  # whole centres
    assert len(by_centre) == 3  # and one that lends the three that are missing
    patients = {f"{10000 + n // 3 * 2 + (n % 3 == 2)}_{n}": str(10000 + n // 3 * 2 + (n % 3 == 2)) for n in range(220)}
    test = draw_test(patients, share(220, part=40, whole=220))
    assert len(test) == 40
    assert {patients[case] for case in test}.isdisjoint(patients[case] for case in set(patients) - test)
    assert draw_test(dict(reversed(patients.items())), 40) == test  # whatever the order of the files


def test_the_share_of_other_archives():
    assert [share(n, part=44, whole=224) for n in (0, 1, 2, 5, 50, 224)] == [0, 0, 1, 1, 10, 44]
