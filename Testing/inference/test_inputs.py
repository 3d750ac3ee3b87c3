"""``NAME=path`` to checked channels: names, units, fields of view."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.channels import default_normalisation
from TeachFormerCore.data.grid import Grid
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.inputs import check_inputs, input_notices, match_inputs, read_inputs

RANGES = {"CT": (-1000, 500), "PET": (0, 12), "MR": (0, 900)}


def card(*names, optional=()):
    channels = []
    for name in names:
        modality = {"C": "CT", "P": "PET"}.get(name[0], "MR")
        normalisation = default_normalisation(modality)
        channels.append(
            {"name": name, "modality": modality, "normalisation": normalisation, "optional": name in optional}
        )
    return {"name": "sts", "channels": channels, "image_size": [32, 32, 32]}


def volume(modality, *, scale=1.0, origin=(0.0, 0.0, 0.0)):
    low, high = RANGES[modality]
    array = np.random.default_rng(3).uniform(low, high, (4, 5, 6)).astype(np.float32)
    array.flat[:2] = low, high
    image = sitk.GetImageFromArray(array * np.float32(scale))
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin(origin)
    return image


def dicom_series():
    """The tests of the conversion, for the series that they write."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    file = Path(__file__).parents[1] / "data" / "test_suv.py"
    spec = importlib.util.spec_from_file_location("suv_series", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path):
    """One file a modality, in a folder with a space and an umlaut."""
    folder = tmp_path / "Fälle 1"
    folder.mkdir()
    paths = {}
    for modality in RANGES:
        paths[modality] = folder / f"{modality.lower()}=1.nii.gz"
        sitk.WriteImage(volume(modality), str(paths[modality]))
    return paths


def test_names_match_in_any_case_and_by_modality(files):
    inputs = read_inputs([f"mr={files['MR']}", f"Pt={files['PET']}", f"ct={files['CT']}"], card("CT", "PET", "MR_T1"))
    assert list(inputs.images) == ["CT", "PET", "MR_T1"]
    assert inputs.pet_units == "as given (SUV)"
    for name, modality in [("CT", "CT"), ("PET", "PET"), ("MR_T1", "MR")]:
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(inputs.images[name]), sitk.GetArrayFromImage(volume(modality))
        )


def test_a_channel_s_own_name_goes_before_a_modality():
    paths = match_inputs(["MR=a", "MR_T1=b"], card("MR_T1", "MR"))
    assert {name: str(path) for name, path in paths.items()} == {"MR_T1": "b", "MR": "a"}


def test_without_pet_there_are_no_pet_units(files):
    inputs = read_inputs([f"CT={files['CT']}"], card("CT", "PET", optional=["PET"]))
    assert list(inputs.images) == ["CT"]
    assert inputs.pet_units is None


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["CT=a", "PET=b", "US=c"], "'US'"),
        (["CT=a", "PET=b", "MR=c"], "T1 and T2"),
        (["CT=a", "PET=b", "ct=c"], "given twice, as a and c"),
        (["CT=a", "PET=b", "PT=c"], "given twice, as b and c"),
        (["CT=a"], "for PET"),
        ([], "for CT and PET"),
        (["ct.nii.gz"], "NAME=FILE"),
        (["CT="], "NAME=FILE"),
        (["=a"], "NAME=FILE"),
    ],
)
def test_wrong_pairs_are_refused_before_any_file_is_read(pairs, words):
    with pytest.raises(InputError, match=words) as caught:
        read_inputs(pairs, card("CT", "PET", "T1", "T2", optional=["T1", "T2"]))
    assert "The model sts needs CT and PET and can use T1 and T2." in str(caught.value)


def test_bqml_needs_a_factor(files, tmp_path):
    activity = tmp_path / "activity.nii.gz"
    sitk.WriteImage(volume("PET", scale=5000), str(activity))
    pairs = [f"PET={activity}"]
    with pytest.raises(InputError, match="--pet-units bqml"):
        read_inputs(pairs, card("PET"))
    with pytest.raises(InputError, match=r"weight nor dose.*--suv-factor"):
        read_inputs(pairs, card("PET"), "bqml")
    with pytest.raises(InputError, match="--pet-units bqml"):
        read_inputs(pairs, card("PET"), "suv", 0.0002)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="above 0"):
            read_inputs(pairs, card("PET"), "bqml", wrong)
    with pytest.raises(InputError, match="becquerel"):
        read_inputs(pairs, card("PET"), "becquerel")
    inputs = read_inputs(pairs, card("PET"), "bqml", 0.0002)
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(inputs.images["PET"]), sitk.GetArrayFromImage(volume("PET")), rtol=1e-5
    )
    assert "0.0002 SUV per Bq/mL" in inputs.pet_units


def test_a_dicom_pet_is_converted_by_its_header(tmp_path):
    suv = dicom_series()
    folder = suv.write_series(tmp_path / "pet")
    expected = suv.STORED * 1.25 * suv.decayed(60)
    for units in ("suv", "bqml"):
        inputs = read_inputs([f"PET={folder}"], card("PET"), units)
        np.testing.assert_allclose(sitk.GetArrayFromImage(inputs.images["PET"])[1], expected, rtol=1e-5)
        assert inputs.pet_units.startswith("SUV body weight from DICOM: 75 kg, 370 MBq")
    given = read_inputs([f"PET={folder}"], card("PET"), "bqml", 0.001)
    np.testing.assert_allclose(sitk.GetArrayFromImage(given.images["PET"])[1], suv.STORED * 1.25 * 0.001, rtol=1e-5)
    with pytest.raises(InputError, match="single DICOM file: give the folder"):
        read_inputs([f"PET={folder / 'slice0.dcm'}"], card("PET"))
    with pytest.raises(InputError, match=r"slice0\.dcm holds a single slice .*: give the folder of its DICOM series"):
        read_inputs([f"CT={folder / 'slice0.dcm'}"], card("CT"))


def test_a_hot_bladder_in_a_dicom_pet_is_no_wrong_unit(tmp_path):
    suv = dicom_series()
    slope = 150 / (suv.STORED.max() * suv.decayed(60))
    inputs = read_inputs([f"PET={suv.write_series(tmp_path / 'pet', slopes=[f'{slope:.8g}'] * 3)}"], card("PET"))
    assert sitk.GetArrayViewFromImage(inputs.images["PET"]).max() == pytest.approx(150, rel=1e-4)
    check_inputs(inputs.images, card("PET"))


def test_a_refused_image_is_named_by_its_file(files):
    with pytest.raises(InputError, match="HU") as caught:
        read_inputs([f"CT={files['MR']}"], card("CT"))
    assert str(files["MR"]) in str(caught.value)


def test_images_given_directly_are_checked():
    both = card("CT", "PET")
    check_inputs({"PET": volume("PET"), "CT": volume("CT")}, both)
    with pytest.raises(InputError, match="for PET"):
        check_inputs({"CT": volume("CT")}, both)
    with pytest.raises(InputError, match="no channel MR"):
        check_inputs({"CT": volume("CT"), "PET": volume("PET"), "MR": volume("MR")}, both)
    with pytest.raises(InputError, match=r"CT image.*3D"):
        check_inputs({"CT": volume("CT")[:, :, 0], "PET": volume("PET")}, both)
    with pytest.raises(InputError, match="3D volume with one value"):
        check_inputs({"CT": sitk.Compose(volume("CT"), volume("CT")), "PET": volume("PET")}, both)
    with pytest.raises(InputError, match=r"PET image.*bqml"):
        check_inputs({"CT": volume("CT"), "PET": volume("PET", scale=1000)}, both)
    with pytest.raises(InputError, match="No image"):
        check_inputs({}, card("CT", optional=["CT"]))


def test_fields_of_view_must_share_space(files, tmp_path):
    far = tmp_path / "far.nii.gz"
    # CT reaches 11 mm along x (6 voxels of 2 mm from -1), PET begins there.
    sitk.WriteImage(volume("PET", origin=(12.0, 0.0, 0.0)), str(far))
    with pytest.raises(InputError, match="share no space") as caught:
        read_inputs([f"CT={files['CT']}", f"PET={far}"], card("CT", "PET"))
    assert str(far) in str(caught.value)
    assert str(files["CT"]) in str(caught.value)
    check_inputs({"CT": volume("CT"), "PET": volume("PET", origin=(11.0, 0.0, 0.0))}, card("CT", "PET"))


def test_a_missing_optional_channel_is_said(files):
    known = card("CT", "PET", optional=["PET"])
    inputs = read_inputs([f"CT={files['CT']}"], known)
    assert input_notices(inputs.images, known) == ["PET was not given: the model saw an empty image in its place."]
    known = card("PET", "CT", optional=["PET"])  # the reference is then the next one
    inputs = read_inputs([f"CT={files['CT']}"], known)
    assert inputs.reference == str(files["CT"])
    assert len(input_notices(inputs.images, known)) == 1
    with pytest.raises(InputError, match="No image is given for CT"):
        read_inputs([f"PET={files['PET']}"], known)


def test_channels_on_one_grid_leave_no_notice(files):
    known = card("CT", "PET")
    inputs = read_inputs([f"CT={files['CT']}", f"PET={files['PET']}"], known)
    assert input_notices(inputs.images, known) == []


def test_what_a_channel_leaves_out_is_told():
    """A PET of the lowest slice of four, 3 mm of 12."""
    known = card("CT", "PET")
    images = {"CT": volume("CT"), "PET": volume("PET")[:, :, :1]}
    (notice,) = input_notices(images, known)
    assert notice.startswith("PET (6 x 5 x 1 voxels of 2 x 2 x 3 mm) was resampled onto the grid of CT (")
    assert notice.endswith("It covers 25 % of what was computed: the model saw nothing in the rest.")
    lower_half = Grid.of(images["CT"]).part((0, 0, 0), (6, 5, 2))
    (notice,) = input_notices(images, known, computed=lower_half)
    assert "It covers 50 % of what was computed" in notice
    (notice,) = input_notices(images, known, computed=lower_half.part((0, 0, 0), (6, 5, 1)))
    assert notice.endswith("mm).")
    (notice,) = input_notices({"CT": images["PET"], "PET": images["CT"]}, known)
    assert notice.endswith("mm).")


def test_a_pet_converted_twice_is_refused(files, tmp_path):
    twice = tmp_path / "twice.nii.gz"
    sitk.WriteImage(volume("PET", scale=2.5e-4), str(twice))
    with pytest.raises(InputError, match=r"twice\.nii\.gz reaches only 0\.003, .*converted twice"):
        read_inputs([f"PET={twice}"], card("PET"))
    with pytest.raises(InputError, match="--suv-factor given"):
        read_inputs([f"PET={files['PET']}"], card("PET"), "bqml", 2.5e-4)
