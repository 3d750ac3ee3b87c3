"""``.seg.nrrd``: names, colours and codes in the header, read back by SimpleITK and, where it is, by Slicer's MRML."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.image import OutputFiles
from TeachFormerCore.inference.seg_nrrd import as_segmentation, is_segmentation_file, terminology_entry

CODES = {
    "category": ["SCT", "49755003", "Morphologically altered structure"],
    "type": ["SCT", "86049000", "Neoplasm, Primary"],
}
ENTRY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^49755003^Morphologically altered structure~"
    "SCT^86049000^Neoplasm, Primary~^^~Anatomic codes - DICOM master list~^^~^^"
)
CARD = {
    "labels": [
        {"value": 1, "name": "GTV", "color": [255, 0, 51], "terminology": CODES},
        {"value": 2, "name": "Lymph node\nö", "color": [0, 128, 255], "terminology": None},
        {"value": 3, "name": "nothing", "color": [1, 2, 3], "terminology": None},
    ]
}


@pytest.fixture
def label() -> sitk.Image:
    """Two boxes on a flipped and permuted grid."""
    array = np.zeros((6, 8, 10), np.uint8)
    array[1:3, 2:5, 3:7] = 1
    array[5, 7, 9] = 2
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-5.0, 4.0, 30.0))
    image.SetDirection((-1.0, 0, 0, 0, 0, 1.0, 0, 1.0, 0))
    return image


@pytest.fixture
def file(label: sitk.Image, tmp_path: Path) -> Path:
    path = tmp_path / "the mask é.seg.nrrd"
    with OutputFiles() as files:
        files.write_image(as_segmentation(label, CARD), path)
    return path


def test_the_header(file: Path, label: sitk.Image) -> None:
    read = sitk.ReadImage(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(label))
    assert read.GetDirection() == label.GetDirection()
    found = {key: read.GetMetaData(key) for key in read.GetMetaDataKeys() if key.startswith("Segment")}
    assert found["Segment0_ID"] == "Segment_1"
    assert found["Segment0_Name"] == "GTV"
    assert found["Segment0_Color"] == "1 0 0.2"
    assert found["Segment0_LabelValue"] == "1"
    assert found["Segment0_Layer"] == "0"
    assert found["Segment0_Extent"] == "3 6 2 4 1 2"
    assert found["Segment0_Tags"] == f"Segmentation.Status:inprogress|TerminologyEntry:{ENTRY}|"
    assert found["Segment1_Name"] == "Lymph node ö"
    assert found["Segment1_Extent"] == "9 9 7 7 5 5"
    assert found["Segment1_Tags"] == "Segmentation.Status:inprogress|"
    assert found["Segment2_Extent"] == "0 -1 0 -1 0 -1"
    assert found["Segmentation_MasterRepresentation"] == found["Segmentation_SourceRepresentation"] == "Binary labelmap"


SLICER = """
import json, sys
import slicer, vtk
from vtk.util.numpy_support import vtk_to_numpy
scene = slicer.vtkMRMLScene()
node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
storage.SetFileName(sys.argv[1])
assert storage.ReadData(node) == 1
segmentation = node.GetSegmentation()
told = []
for number in range(segmentation.GetNumberOfSegments()):
    segment = segmentation.GetNthSegment(number)
    code = vtk.mutable("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), code)
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    node.GetBinaryLabelmapRepresentation(segmentation.GetNthSegmentID(number), image)
    image.GetImageToWorldMatrix(matrix)
    scalars = image.GetPointData().GetScalars()
    told.append({
        "name": segment.GetName(),
        "color": segment.GetColor(),
        "code": str(code),
        "voxels": int((vtk_to_numpy(scalars) > 0).sum()) if scalars else 0,
        "corner": matrix.MultiplyPoint((*image.GetExtent()[::2], 1))[:3],
    })
print(json.dumps(told))
"""


def test_slicer_reads_it(file: Path, label: sitk.Image, tmp_path: Path) -> None:
    """The real storage node of MRML, in a process of its own."""
    try:
        importlib.metadata.version("slicer-core")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("slicer-core is not installed")
    done = subprocess.run(
        [sys.executable, "-c", SLICER, str(file)],
        capture_output=True, encoding="utf-8", cwd=tmp_path, env={**os.environ, "PYTHONPATH": "", "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [segment["name"] for segment in told] == ["GTV", "Lymph node ö", "nothing"]
    assert told[0]["color"] == pytest.approx((1, 0, 0.2))
    assert told[0]["code"] == ENTRY
    assert [segment["voxels"] for segment in told] == [24, 1, 0]
    first = np.array(label.TransformIndexToPhysicalPoint((3, 2, 1))) * (-1, -1, 1)  # LPS to RAS
    np.testing.assert_allclose(told[0]["corner"], first)


def test_codes_cannot_break_the_entry() -> None:
    odd = {"category": ["a~b", "c^d", "e|f"], "type": ["SCT", "1", "x:y"]}
    entry = terminology_entry(odd)
    assert entry is not None
    assert entry.split("~")[1:3] == ["a b^c d^e f", "SCT^1^x y"]
    assert terminology_entry(None) is None


def test_a_segmentation_file_by_its_name() -> None:
    assert is_segmentation_file(Path("A.SEG.NRRD"))
    assert not is_segmentation_file(Path("a.nrrd"))
