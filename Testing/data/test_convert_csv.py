"""A table of cases: any files, DICOM and PET as SUV."""

import archives
import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.convert import csv_table
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.splits import patient_centres
from TeachFormerCore.errors import InputError


def write_table(folder, text, images):
    folder.mkdir(exist_ok=True)
    grid = archives.empty((12, 11, 10), (2, 2, 2), (0, 0, 0), archives.rotation())
    for number, name in enumerate(images):
        image = (
            archives.ball(grid, (0, 0, 0), radius=5, value=number + 1)
            if "seg" in name
            else archives.blob(grid, (number, 0, 0), high=100 + number)
        )
        sitk.WriteImage(image, str(folder / name))
    (folder / "cases.csv").write_text(text, encoding="utf-8-sig")
    return folder / "cases.csv"


def test_csv(tmp_path):
    table = write_table(
        tmp_path / "src",
        "case;patient;centre;split;T1;FLAIR;label\n"
        "b;p1;Bonn;train;1.nrrd;2.nrrd;0seg.nrrd\na;p1;Bonn;;2.nrrd;3.nrrd;1seg.nii.gz\nc;p2;Ulm;test;3.nrrd;4.nrrd;\n"
        "d;p3;Ulm;train;missing.nrrd;4.nrrd;0seg.nrrd\n",
        ["0seg.nrrd", "1seg.nii.gz", "1.nrrd", "2.nrrd", "3.nrrd", "4.nrrd"],
    )
    outcome = convert(csv_table.archive(table), tmp_path / "src" / "dst")  # beside its table, not in its images
    assert (outcome.training, outcome.test) == (2, 1)
    assert "missing.nrrd does not exist" in outcome.failed["d"]
    dataset = open_dataset(tmp_path / "src" / "dst")
    assert dataset.channels == ("T1", "FLAIR")
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert dataset.patients() == {"a": "p1", "b": "p1"}
    assert patient_centres(dataset) == {"p1": "Bonn"}
    outcome = convert(csv_table.archive(table, labels={"rim": 2}), tmp_path / "named")
    assert "holds the values [1], which --labels does not name" in outcome.failed["b"]
    assert open_dataset(tmp_path / "named").labels == {"background": 0, "rim": 1}  # no gaps
    assert set(np.unique(archives.array(tmp_path / "named", "labelsTr", "a"))) == {0, 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,T1\nx,1.nrrd\n", "needs the column 'case'"),
        ("case,label\nx,1.nrrd\n", "one column a channel"),
        ("case,T1,t1\nx,1.nrrd,1.nrrd\n", "two columns"),
        ("case,T1\n../x,1.nrrd\n", "no case name"),
        ("case,T1\nx,1.nrrd\nx,1.nrrd\n", "line 3: the case 'x' is there twice"),
        ("case,split,T1\nx,val,1.nrrd\n", "neither train nor test"),
        ("case,T1\n", "no cases"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        csv_table.archive(write_table(tmp_path / "src", text, ["1.nrrd"]))


def test_csv_takes_dicom_and_pet_as_suv(tmp_path):
    """The series of the SUV tests, beside a NIfTI file on another grid."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    from test_suv import write_series

    write_series(tmp_path / "src" / "pet", slopes=("1",) * 4)
    grid = archives.empty((10, 8, 8), (1.5, 1.5, 1.5), (14, 23, 4.5), archives.rotation())
    sitk.WriteImage(archives.blob(grid, (14, 23, 4.5), low=-1000), str(tmp_path / "src" / "ct.nii.gz"))
    (tmp_path / "src" / "t.csv").write_text("case,CT,PET\nx,ct.nii.gz,pet\n", encoding="utf-8")
    outcome = convert(csv_table.archive(tmp_path / "src"), tmp_path / "dst")
    assert outcome.failed == {}
    assert any("PET was resampled" in note for _, note in outcome.notes)
    assert archives.array(tmp_path / "dst", "imagesTr", "x_0001").max() < 1  # Bq/mL would be 1950
