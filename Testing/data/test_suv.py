"""SUV body weight from DICOM series made here, against the closed form."""

import sys
from copy import deepcopy

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

from TeachFormerCore.data.image import dicom_series_files  # noqa: E402
from TeachFormerCore.data.suv import read_suv, suv_factor  # noqa: E402
from TeachFormerCore.errors import InputError, MissingDependencyError  # noqa: E402

PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
WEIGHT_KG, DOSE_BQ, HALF_LIFE_S = 75.0, 370e6, 6586.2
STORED = np.arange(4 * 5, dtype=np.uint16).reshape(4, 5) * 100 + 50


def write_series(folder, *, slopes=("0.5", "1.25", "2"), positions=None, tags=None, dose_tags=None, private=None):
    """A PET series of 4 x 5 voxels a slice; ``tags`` and ``dose_tags`` override, None removes.

    By default 75 kg, 370 MBq at 10:00, series start 11:00.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, frame = generate_uid(), generate_uid()
    for number, slope in enumerate(slopes):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = PET_STORAGE
        meta.MediaStorageSOPInstanceUID = generate_uid()
        item = Dataset()
        item.RadionuclideTotalDose = str(DOSE_BQ)
        item.RadionuclideHalfLife = str(HALF_LIFE_S)
        item.RadiopharmaceuticalStartTime = "100000.00"
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = PET_STORAGE, meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID = slice_.SeriesInstanceUID = series
        slice_.FrameOfReferenceUID = frame
        slice_.PatientName, slice_.PatientID = "Doe^Jane", "SECRET-17"
        slice_.Modality, slice_.Units, slice_.DecayCorrection = "PT", "BQML", "START"
        slice_.CorrectedImage = ["DECY", "ATTN", "SCAT"]
        slice_.PatientWeight = str(WEIGHT_KG)
        slice_.SeriesDate = slice_.AcquisitionDate = "20200301"
        slice_.SeriesTime = "110000"
        slice_.AcquisitionTime = f"1102{number:02d}"
        slice_.InstanceNumber = number + 1
        position = 3.0 * number if positions is None else positions[number]
        slice_.ImagePositionPatient = [10, 20, position]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [2, 2], 3
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = *STORED.shape, 1
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PhotometricInterpretation = "MONOCHROME2"
        slice_.RescaleSlope, slice_.RescaleIntercept = slope, "0"
        slice_.PixelData = STORED.tobytes()
        if private is not None:
            block = slice_.private_block(0x7053, "Philips PET Private Group", create=True)
            for element, value in private.items():
                block.add_new(element, "DS", value)
        override(item, dose_tags)
        slice_.RadiopharmaceuticalInformationSequence = [item]
        override(slice_, tags)
        slice_.save_as(folder / f"slice{number}.dcm", enforce_file_format=True)
    return folder


def override(dataset, tags):
    for keyword, value in (tags or {}).items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, deepcopy(value))


def factor(folder):
    return suv_factor(dicom_series_files(folder)).factor


def decayed(minutes, half_life=HALF_LIFE_S):
    """The closed form: g per Bq left."""
    return WEIGHT_KG * 1000 / (DOSE_BQ * 2 ** (-minutes * 60 / half_life))


def test_start_decays_the_dose_from_injection_to_series(tmp_path):
    image, how = read_suv(write_series(tmp_path / "pet"))
    expected = np.stack([STORED * slope * decayed(60) for slope in (0.5, 1.25, 2)])
    assert image.GetPixelID() == sitk.sitkFloat32
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), expected, rtol=1e-5)
    assert image.GetSpacing() == (2, 2, 3)
    assert image.GetOrigin() == (10, 20, 0)
    for word in ("75 kg", "370 MBq", "10:00:00", "11:00:00", "60.0 min"):
        assert word in how
    assert not any(word in how for word in ("Doe", "SECRET", "2020"))


def test_half_life_doubles_the_factor(tmp_path):
    half_life_of_an_hour = write_series(tmp_path / "a", dose_tags={"RadionuclideHalfLife": "3600"})
    assert factor(half_life_of_an_hour) == pytest.approx(2 * WEIGHT_KG * 1000 / DOSE_BQ, rel=1e-9)


@pytest.mark.parametrize("slopes", [("1", "0.5", "0.3"), ("0.001", "2", "5000"), ("3", "40000", "0.25")])
def test_each_slice_has_its_own_slope(tmp_path, slopes):
    """Also where the first is a whole number, at which ITK alone cuts all others off to whole numbers."""
    image, _ = read_suv(write_series(tmp_path / "pet", slopes=slopes))
    expected = np.stack([STORED * float(slope) for slope in slopes]) * decayed(60)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), expected, rtol=1e-5)


def test_admin_needs_no_times(tmp_path):
    folder = write_series(
        tmp_path / "pet",
        tags={"DecayCorrection": "ADMIN", "SeriesTime": None},
        dose_tags={"RadiopharmaceuticalStartTime": None, "RadionuclideHalfLife": None},
    )
    assert factor(folder) == pytest.approx(WEIGHT_KG * 1000 / DOSE_BQ, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(
    ("tags", "dose_tags", "minutes"),
    [
        ({"SeriesTime": "003000", "AcquisitionTime": "003100"}, {"RadiopharmaceuticalStartTime": "233000"}, 60),
        (
            {},
            {"RadiopharmaceuticalStartDateTime": "20200301101500.5", "RadiopharmaceuticalStartTime": None},
            45 - 0.5 / 60,
        ),
        (
            {"SeriesTime": "001000", "AcquisitionTime": "001100"},
            {"RadiopharmaceuticalStartDateTime": "20200229235000", "RadiopharmaceuticalStartTime": "120000"},
            20,
        ),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200301093000+0000"}, 90),
        ({"TimezoneOffsetFromUTC": "+0100"}, {"RadiopharmaceuticalStartDateTime": "20200301093000+0000"}, 30),
        # The series was written after the scan: the first acquisition counts.
        ({"SeriesTime": "150000", "AcquisitionTime": "111000"}, {}, 70),
        ({"SeriesDate": "20200302", "SeriesTime": "080000", "AcquisitionTime": "105000"}, {}, 50),
        # Without its date the acquisition, past midnight, is still after the series' start.
        (
            {"SeriesTime": "235000", "AcquisitionDate": None, "AcquisitionTime": "000500"},
            {"RadiopharmaceuticalStartTime": "225000"},
            60,
        ),
        ({"AcquisitionTime": None}, {}, 60),
        ({"SeriesTime": "1100"}, {"RadiopharmaceuticalStartTime": "09:00:00"}, 120),
    ],
)
def test_times(tmp_path, tags, dose_tags, minutes):
    folder = write_series(tmp_path / "pet", tags=tags, dose_tags=dose_tags)
    assert factor(folder) == pytest.approx(decayed(minutes), rel=1e-6)


def test_the_earliest_acquisition_of_all_slices_counts(tmp_path):
    folder = write_series(tmp_path / "pet", tags={"SeriesTime": "120000"})
    last = folder / "slice2.dcm"
    dataset = pydicom.dcmread(last)
    dataset.AcquisitionTime = "104500"
    dataset.save_as(last)
    assert factor(folder) == pytest.approx(decayed(45), rel=1e-9)


@pytest.mark.parametrize("kind", [None, "BW"])
def test_gml_is_suv_already(tmp_path, kind):
    tags = {"Units": "GML", "PatientWeight": None, "DecayCorrection": None} | ({"SUVType": kind} if kind else {})
    image, how = read_suv(write_series(tmp_path / "pet", tags=tags))
    np.testing.assert_allclose(sitk.GetArrayFromImage(image)[1], STORED * 1.25, rtol=1e-6)
    assert "GML" in how


def test_philips_counts(tmp_path):
    direct = write_series(tmp_path / "a", tags={"Units": "CNTS"}, private={0x00: "0.00041", 0x09: "7"})
    assert factor(direct) == pytest.approx(0.00041)
    by_activity = write_series(tmp_path / "b", tags={"Units": "CNTS"}, private={0x00: "0", 0x09: "1.5"})
    assert factor(by_activity) == pytest.approx(1.5 * decayed(60), rel=1e-6)
    with pytest.raises(InputError, match="7053,1000"):
        factor(write_series(tmp_path / "c", tags={"Units": "CNTS"}))


@pytest.mark.parametrize(
    "keyword",
    [
        "Units",
        "PatientWeight",
        "DecayCorrection",
        "SeriesDate",
        "SeriesTime",
        "RadiopharmaceuticalInformationSequence",
        "RadionuclideTotalDose",
        "RadionuclideHalfLife",
        "RadiopharmaceuticalStartTime",
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_tag_is_named(tmp_path, keyword, empty):
    of_dose = keyword.startswith("Radionuclide") or keyword.endswith("StartTime")
    value = [] if keyword.endswith("Sequence") else ""
    change = {keyword: value if empty else None}
    folder = write_series(tmp_path / "pet", **{"dose_tags" if of_dose else "tags": change})
    with pytest.raises(InputError, match=keyword) as caught:
        factor(folder)
    assert "lacks" in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("tags", "dose_tags", "words"),
    [
        ({}, {"RadionuclideTotalDose": "370"}, "MBq"),
        ({}, {"RadionuclideTotalDose": "0"}, "RadionuclideTotalDose"),
        ({}, {"RadionuclideHalfLife": "0"}, "RadionuclideHalfLife"),
        ({"PatientWeight": "0"}, {}, "PatientWeight"),
        ({"PatientWeight": "75000"}, {}, "weight in kg"),
        ({"DecayCorrection": "NONE"}, {}, "NONE"),
        ({"Units": "PROPCPS"}, {}, "PROPCPS"),
        ({"Units": "GML", "SUVType": "LBM"}, {}, "LBM"),
        ({"Modality": "CT"}, {}, "CT"),
        ({"CorrectedImage": ["DECY", "SCAT"]}, {}, "attenuation"),
        ({"SeriesTime": "2561"}, {}, "SeriesTime"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200305100000"}, "impossible"),
        ({}, {"RadiopharmaceuticalStartDateTime": "19800101100000"}, "impossible"),
        ({}, {"RadionuclideHalfLife": "282240"}, "RadiopharmaceuticalStartDateTime"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_what_makes_no_sense_is_refused(tmp_path, tags, dose_tags, words):
    with pytest.raises(InputError, match=words):
        factor(write_series(tmp_path / "pet", tags=tags, dose_tags=dose_tags))


def test_dynamic_and_incomplete_series_are_refused(tmp_path):
    with pytest.raises(InputError, match="misses slices or has some twice"):
        read_suv(write_series(tmp_path / "a", slopes=["1"] * 6, positions=[0, 3, 6, 0, 3, 6]))
    with pytest.raises(InputError, match="6.00 mm, elsewhere 3.00 mm"):
        read_suv(write_series(tmp_path / "b", slopes=["1"] * 4, positions=[0, 3, 9, 12]))
    with pytest.raises(InputError, match="single slice"):
        read_suv(write_series(tmp_path / "c", slopes=["1"]))


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "pet")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDependencyError, match=r"TeachFormer\[dicom\]"):
        read_suv(folder)
