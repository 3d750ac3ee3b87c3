"""The cases of a batch from tables and folders."""

import json
import unicodedata
from pathlib import Path

import pytest
import SimpleITK as sitk

from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.manifest import BatchCase, find_cases

CARD = {
    "name": "m",
    "channels": [
        {"name": name, "modality": modality, "normalisation": {}, "optional": False}
        for name, modality in (("CT", "CT"), ("PET", "PET"), ("MR_T1", "MR"))
    ],
}


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "cases é.csv"
    file.write_bytes(text.encode(encoding))
    return file


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names_of(cases: list[BatchCase]) -> dict[str, list[str]]:
    """Case -> NAME=file name."""
    told = {}
    for case in cases:
        pairs = [pair.partition("=") for pair in case.pairs(CARD)]
        told[case.name] = [f"{name}={Path(path).name}" for name, _, path in pairs]
    return told


def test_a_table(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "\ufeffPET,Case,ct,mr,region_ras,suv_factor\n"
        'p.nrrd,b 2,images/c.nii.gz,m.mha,"1,2,3,40,50,60",\n'
        "/abs/p.nrrd, ä1 ,,,,0.001\n\n",
    )
    first, second = find_cases(file, CARD)
    assert (first.name, second.name) == ("b 2", "ä1")
    folder = tmp_path.resolve()
    assert first.inputs == (f"PET={folder}/p.nrrd", f"CT={folder}/images/c.nii.gz", f"MR_T1={folder}/m.mha")
    assert (first.region_ras, first.suv_factor) == ("1,2,3,40,50,60", "")
    assert second.inputs == ("PET=/abs/p.nrrd",)  # what is missing is said when its turn comes
    assert second.suv_factor == "0.001"


def test_a_table_as_excel_writes_it(tmp_path: Path) -> None:
    (case,) = find_cases(table(tmp_path, "case;CT;PET\r\na;c.nii;p.nii\r\n"), CARD)
    assert [Path(pair.partition("=")[2]).name for pair in case.inputs] == ["c.nii", "p.nii"]


@pytest.mark.parametrize(
    "text",
    [
        "case,CT,PET,\na,c.nii,p.nii,\n",
        "case;CT;PET;;\r\na;c.nii;p.nii; ;\r\n;;;;\r\n",
        "case,,CT,PET\na,,c.nii,p.nii,,\n",
    ],
)
def test_columns_that_are_empty_throughout_are_none(tmp_path: Path, text: str) -> None:
    (case,) = find_cases(table(tmp_path, text), CARD)
    assert case.name == "a"
    assert case.inputs == (f"CT={tmp_path.resolve()}/c.nii", f"PET={tmp_path.resolve()}/p.nii")


def test_a_link_in_a_table_keeps_its_name(tmp_path: Path) -> None:
    """What it leads to may have no ending, as in a store by content."""
    touch(tmp_path, "store/ab12")
    (tmp_path / "ct.nii.gz").symlink_to(tmp_path / "store" / "ab12")
    (case,) = find_cases(table(tmp_path, "case,CT\na,sub/../ct.nii.gz\n"), CARD)
    assert case.inputs == (f"CT={tmp_path.resolve()}/ct.nii.gz",)


BAD_TABLES = {
    "empty": ("", "no column 'case'"),
    "header only": ("case,CT,PET\n", "holds no cases"),
    "no case column": ("name,CT\na,b\n", "column 'name', which is not case"),
    "unknown column": ("case,CT,US\na,b,c\n", "column 'US', which is not case"),
    "two columns": ("case,CT,ct\na,b,c\n", "two columns for CT"),
    "too many cells": ("case,CT\na,b,c\n", "line 2, has 3 cells"),
    "open quote": ('case,CT\na,"b\n', "is not CSV"),
    "null byte": ("case,CT\na,b\0c\n", "CSV|printed"),
    "no name": ("case,CT\n,b\n", "case named ''"),
    "path as name": ("case,CT\n../a,b\n", "cannot be the name of a file"),
    "formula as name": ("case,CT\n=1+1,b\n", "cannot be the name of a file"),
    "hidden name": ("case,CT\n.a,b\n", "cannot be the name of a file"),
    "the summary": ("case,CT\nSummary,b\n", "cannot be the name of a file"),
    "long name": (f"case,CT\n{'a' * 200},b\n", "at most 150"),
    "twice": ("case,CT\na,b\nA,c\n", "two cases named a and A"),
    "twice, in two codes": (f"case,CT\nä,b\n{unicodedata.normalize('NFD', 'Ä')},c\n", "two cases named ä and"),
    "cells without a column": ("case,CT,\na,b,\nc,d,e\n", "column ''"),
    "misspelt and empty": ("case,CT,regoin_ras\na,b,\n", "column 'regoin_ras'"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_is_refused(tmp_path: Path, fault: str) -> None:
    text, reason = BAD_TABLES[fault]
    with pytest.raises(InputError, match=reason):
        find_cases(table(tmp_path, text), CARD)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="CSV in UTF-8"):
        find_cases(table(tmp_path, "case,CT\nä,b\n", "latin-1"), CARD)


def test_numbers_are_the_cards_channels(tmp_path: Path) -> None:
    touch(tmp_path, "b_0000.nii.gz", "b_0001.nii.gz", "b_0002.nii.gz", "a_1_0000.nrrd", "._a_0001.nrrd", "note.txt")
    assert names_of(find_cases(tmp_path, CARD)) == {
        "a_1": ["CT=a_1_0000.nrrd"],
        "b": ["CT=b_0000.nii.gz", "PET=b_0001.nii.gz", "MR_T1=b_0002.nii.gz"],
    }


@pytest.mark.parametrize("place", ["dataset.json", "imagesTs/dataset.json"])
def test_numbers_are_the_datasets_channels_where_it_says_so(tmp_path: Path, place: str) -> None:
    images = touch(tmp_path, *(f"imagesTs/a_{number:04d}.nii.gz" for number in range(4))) / "imagesTs"
    named = {"channel_names": {"0": "T2", "1": "pet", "2": "CT", "3": "MR_T1"}}
    (tmp_path / place).write_text(json.dumps(named))
    assert names_of(find_cases(images, CARD)) == {"a": ["PET=a_0001.nii.gz", "CT=a_0002.nii.gz", "MR_T1=a_0003.nii.gz"]}
    (tmp_path / place).write_text('{"channel_names": [1]}')
    with pytest.raises(InputError, match="nnU-Net description"):
        find_cases(images, CARD)


def test_subfolders_by_channel(tmp_path: Path) -> None:
    touch(
        tmp_path, "B/ct.nii.gz", "B/PT.nrrd", "B/MR_T1/slice", "B/label.nii.gz", "B/PET.txt", "A/CT.mha", ".git/CT.mha"
    )
    assert names_of(find_cases(tmp_path, CARD)) == {
        "A": ["CT=CT.mha"],
        "B": ["MR_T1=MR_T1", "PET=PT.nrrd", "CT=ct.nii.gz"],
    }
    touch(tmp_path, "A/CT.nii.gz")
    with pytest.raises(InputError, match="two images for CT"):
        names_of(find_cases(tmp_path, CARD))


def test_the_results_of_a_batch_are_no_case(tmp_path: Path) -> None:
    touch(tmp_path, "A/CT.nii.gz", "results/A.nii.gz", "results/state-1-of-2.jsonl")
    assert names_of(find_cases(tmp_path, CARD)) == {"A": ["CT=CT.nii.gz"]}


@pytest.mark.parametrize("place", ["results", "results/first", "new", "new/first"])
def test_the_folder_of_the_results_is_no_case_before_it_holds_any(tmp_path: Path, place: str) -> None:
    """Shards that start at different moments find it absent, empty, or with results."""
    touch(tmp_path, "A/CT.nii.gz", "B/CT.nii.gz")
    (tmp_path / "results").mkdir()
    output = tmp_path / place
    if place.startswith("new"):
        assert set(names_of(find_cases(tmp_path, CARD, output))) == {"A", "B", "results"}, "somebody's own"
        (tmp_path / "results").rmdir()
    for name in ("", "A.nii.gz", "CT.nii.gz", "state-1-of-2.jsonl"):
        output.mkdir(parents=True, exist_ok=True)
        if name and name != "CT.nii.gz":
            touch(output, name)
        assert set(names_of(find_cases(tmp_path, CARD, output))) == {"A", "B"}


@pytest.mark.parametrize("place", ["A", "A/results"])
def test_results_among_the_images_of_a_case_are_refused(tmp_path: Path, place: str) -> None:
    touch(tmp_path, "A/CT.nii.gz", "B/CT.nii.gz")
    with pytest.raises(InputError, match="lies in the folder of the case A"):
        find_cases(tmp_path, CARD, tmp_path / place)


def test_results_that_would_be_taken_for_images_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "hip_0001_0000.nii.gz", "hip_0001_0001.nii.gz")
    assert set(names_of(find_cases(tmp_path, CARD, tmp_path / "out"))) == {"hip_0001"}
    with pytest.raises(InputError, match="hip_0001 would be taken for an image"):
        find_cases(tmp_path, CARD, tmp_path)
    touch(tmp_path, "named/hip/CT.nii.gz")
    assert set(names_of(find_cases(tmp_path / "named", CARD, tmp_path / "named"))) == {"hip"}


def dicom_slice(file: Path, modality: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.Image(4, 4, sitk.sitkInt16)
    image.SetMetaData("0008|0060", modality)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.Execute(image)


def test_dicom_series_by_their_modality(tmp_path: Path) -> None:
    dicom_slice(tmp_path / "case" / "1.2.840" / "a.dcm", "CT")
    dicom_slice(tmp_path / "case" / "1.2.841" / "a.dcm", "PT")
    dicom_slice(tmp_path / "case" / "1.2.842" / "a.dcm", "SEG")
    touch(tmp_path, "case/other/a.dcm")
    assert names_of(find_cases(tmp_path, CARD)) == {"case": ["CT=1.2.840", "PET=1.2.841"]}
    dicom_slice(tmp_path / "single" / "a.dcm", "CT")
    assert names_of(find_cases(tmp_path, CARD))["single"] == ["CT=single"]


@pytest.mark.parametrize("place", ["none", "empty"])
def test_nothing_to_do_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="does not exist|holds no cases"):
        find_cases(tmp_path / place, CARD)
