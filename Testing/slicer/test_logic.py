"""The module's Logic on real MRML: volumes in; segmentation, maps, table and display out."""

import csv
import re
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("slicer", reason="slicer-core is not installed")

from stand_ins import core

core.install()

from TeachFormerLib import geometry, mapping, nrrd, overlay, results  # noqa: E402
from TeachFormerLib.logic import Logic, fieldOfViewReason  # noqa: E402
from TeachFormerLib.parameters import Overlay, PetValues  # noqa: E402
from TeachFormerLib.run import CANCELLED, DONE, FAILED  # noqa: E402


def finish(run, *, seconds=120.0, cancel_at=None):
    """Polls a run to its end; the longest poll in seconds."""
    longest, end = 0.0, time.monotonic() + seconds
    while run.running and time.monotonic() < end:
        start = time.perf_counter()
        run.poll()
        longest = max(longest, time.perf_counter() - start)
        if cancel_at is not None and cancel_at(run):
            run.cancel()
            cancel_at = None
        time.sleep(0.01)
    assert not run.running, f"still {run.state} after {seconds} s"
    return longest


def show(logic, run, parameters):
    for _step in logic.showSteps(run, parameters):
        pass


@pytest.fixture
def logic():
    return Logic()


@pytest.fixture
def ready(scene, phantom, tiny, logic):
    """Parameters with the phantom chosen."""
    parameters = core.parameters()
    parameters.model = "tiny"
    logic.fillChannels(parameters, tiny)
    assert logic.readiness(parameters, tiny) == (True, "")
    return parameters


def test_a_run_becomes_nodes_on_the_references_grid(scene, ready, phantom, tiny, logic, tmp_path) -> None:
    """Names, colours, codes, geometry, table; again into the same nodes; through a .seg.nrrd file and back."""
    run = logic.startRun(ready, tiny)
    assert finish(run) < 0.1
    assert (run.state, run.failure) == (DONE, None)
    assert set(run.arrays) >= {"label", "attention_fine", "attention_coarse", "uncertainty"}
    assert "attention_gradcam" not in run.arrays, "it was not asked for"
    show(logic, run, ready)
    segmentation = ready.segmentation.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 1
    segment = segmentation.GetNthSegment(0)
    assert segment.GetName() == "GTV"
    np.testing.assert_allclose(np.array(segment.GetColor()) * 255, (230, 85, 13), atol=0.5)
    assert "SCT^86049000^Neoplasm, Primary" in terminology(segment)

    label = exported(scene, ready.segmentation, phantom.CT)
    np.testing.assert_array_equal(label, run.arrays["label"])
    assert 0 < np.count_nonzero(label) < label.size
    for field, name in (("attentionFine", "attention_fine"), ("uncertainty", "uncertainty")):
        node = getattr(ready, field)
        np.testing.assert_array_equal(scene.util.arrayFromVolume(node), run.arrays[name])
        np.testing.assert_allclose(geometry.ijkToWorld(node), geometry.ijkToWorld(phantom.CT), atol=1e-6)
    columns = {ready.statistics.GetColumnName(c): ready.statistics.GetCellText(0, c) for c in range(9)}
    figures = run.statistics["labels"][0]
    assert columns["Segment"] == "GTV"
    assert float(columns["Volume (mL)"]) == pytest.approx(figures["volume_ml"], rel=1e-3)
    assert float(columns["SUVmax"]) == pytest.approx(figures["pet"]["suv_max"], rel=1e-3)
    assert "mL" in logic.summary(run)

    first, count = ready.segmentation.GetID(), scene.mrmlScene.GetNumberOfNodes()
    again = logic.startRun(ready, tiny)
    finish(again)
    show(logic, again, ready)
    assert (ready.segmentation.GetID(), scene.mrmlScene.GetNumberOfNodes()) == (first, count)
    assert segmentation.GetNumberOfSegments() == 1

    storage = scene.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "Fälle 1.seg.nrrd"))
    assert storage.WriteData(ready.segmentation)
    read = scene.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(read)
    back = read.GetSegmentation().GetNthSegment(0)
    assert back.GetName() == "GTV"
    assert "SCT^86049000^Neoplasm, Primary" in terminology(back)
    np.testing.assert_array_equal(exported(scene, read, phantom.CT), label)

    results.writeCsv(ready.statistics, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["Segment"] == "GTV"
    assert rows[0]["Volume (mL)"] == columns["Volume (mL)"]


def terminology(segment) -> str:
    import vtk

    text = vtk.reference("")
    if segment.GetTag(segment.GetTerminologyEntryTagName(), text):
        return str(text)
    return segment.GetTerminology().GetAsPrintableString() if hasattr(segment, "GetTerminology") else ""


def exported(slicer, node, reference):
    """The first segment on the reference's grid, by Slicer's own segmentations logic."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    import vtk

    identifiers = vtk.vtkStringArray()
    identifiers.InsertNextValue(node.GetSegmentation().GetNthSegmentID(0))
    assert logic.ExportSegmentsToLabelmapNode(node, identifiers, label, reference)
    array = slicer.util.arrayFromVolume(label).copy()
    np.testing.assert_allclose(geometry.ijkToWorld(label), geometry.ijkToWorld(reference), atol=1e-6)
    slicer.mrmlScene.RemoveNode(label)
    return array


def test_an_oblique_grid_under_a_transform_keeps_its_place(scene, phantom_images, tiny, logic) -> None:
    """The worker gets the volume where the views show it; the result lies there, and the label is that of the core."""
    import vtk

    from TeachFormerCore.inference.predictor import Predictor

    images = {name: core.tilted(image) for name, image in phantom_images.items()}
    nodes = {name: core.volume_from(image, name) for name, image in images.items()}
    transform = scene.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 40.0)  # 40 mm to the right
    transform.SetMatrixTransformToParent(matrix)
    for node in nodes.values():
        node.SetAndObserveTransformNodeID(transform.GetID())
    parameters = core.parameters()
    logic.fillChannels(parameters, tiny)
    run = logic.startRun(parameters, tiny)
    finish(run)
    assert run.failure is None
    show(logic, run, parameters)
    for image in images.values():
        image.SetOrigin((image.GetOrigin()[0] - 40.0, *image.GetOrigin()[1:]))
    wanted = Predictor(tiny.folder, device="cpu").run(images)
    agreement = (sitk.GetArrayFromImage(wanted.label) == run.arrays["label"]).mean()
    assert agreement > 0.999
    moved = geometry.to_array(matrix) @ geometry.ijkToWorld(
        core.volume_from(core.tilted(phantom_images["CT"]), "still")
    )
    np.testing.assert_allclose(geometry.ijkToWorld(parameters.attentionFine), moved, atol=1e-4)
    label = exported(scene, parameters.segmentation, parameters.attentionFine)
    np.testing.assert_array_equal(label, run.arrays["label"])


def test_a_pet_can_be_taken_from_its_dicom_series(scene, ready, phantom, tiny, logic, monkeypatch, tmp_path) -> None:
    """The files that Slicer's database knows go to the worker as one series, which computes SUV from their headers."""
    files = {f"1.2.{number}": tmp_path / f"IM {number}" for number in range(2)}
    for uid, file in files.items():
        file.write_text(uid, encoding="ascii")

    class Database:
        def fileForInstance(self, uid):
            return str(files.get(uid, ""))

        def instanceValue(self, uid, tag):
            return {"0008,0060": "PT", "0008,103E": "WB PET"}[tag] if uid in files else ""

    monkeypatch.setattr(scene, "dicomDatabase", Database(), raising=False)
    phantom.PET.SetName("6: unnamed")
    phantom.PET.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    assert logic.channelReasons(ready, tiny)[1] == "series description contains 'pet'"
    ready.petValues = PetValues.DICOM
    assert logic.readiness(ready, tiny) == (True, "")
    run = logic.startRun(ready, tiny)
    end = time.monotonic() + 30
    while run.state == "writing" and time.monotonic() < end:
        run.poll()
        time.sleep(0.01)
    series = sorted((run._folder / "dicom-PET").iterdir())
    assert [file.read_text(encoding="ascii") for file in series] == list(files)
    assert not (run._folder / "PET.nrrd").exists()
    assert (run._folder / "CT.nrrd").exists()
    run.cancel()
    finish(run)
    phantom.PET.SetAttribute("DICOM.instanceUIDs", "1.2.9")
    assert "is not in Slicer's DICOM database" in logic.readiness(ready, tiny)[1]


def test_cancel_leaves_nothing_and_takes_less_than_two_seconds(scene, ready, tiny, logic) -> None:
    run = logic.startRun(ready, tiny)
    folder, start = run._folder, []
    finish(run, cancel_at=lambda run: run.state == "computing" and (start.append(time.monotonic()) or True))
    assert run.state == CANCELLED
    assert time.monotonic() - start[0] < 2.0
    end = time.monotonic() + 5
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not folder.exists()
    assert ready.segmentation is None


def test_a_refusal_is_told_with_its_cause_and_remedy(scene, ready, phantom, tiny, logic) -> None:
    scene.util.updateVolumeFromArray(phantom.CT, np.zeros_like(scene.util.arrayFromVolume(phantom.CT)))
    run = logic.startRun(ready, tiny)
    finish(run)
    assert run.state == FAILED
    assert "the same value, 0, in every voxel" in run.failure.cause
    assert run.failure.sentence.endswith("check that it is the right file.")


def test_volumes_of_every_type_go_through_the_files(tmp_path: Path) -> None:
    """What NumPy writes SimpleITK reads, with geometry; what ITK writes, gzip and raw, NumPy reads."""
    matrix = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.25], [0.0, 0.0, -3.0, 11.0], [0, 0, 0, 1]])
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", ">i2", "bool"):
        array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
        nrrd.write_nrrd(tmp_path / "a.nrrd", array[:, ::-1], matrix)
        image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array[:, ::-1])
        assert image.TransformIndexToPhysicalPoint((1, 1, 1)) == pytest.approx((matrix @ [1, 1, 1, 1])[:3])
        for compressed in (True, False):
            sitk.WriteImage(image, str(tmp_path / "b.nrrd"), useCompression=compressed)
            np.testing.assert_array_equal(nrrd.read_nrrd(tmp_path / "b.nrrd"), array[:, ::-1])
    with pytest.raises(ValueError, match="complex64"):
        nrrd.write_nrrd(tmp_path / "c.nrrd", np.zeros((2, 2, 2), np.complex64), matrix)


MAPPING = [
    (["CT", "PET"], ["Phantom PET", "Phantom CT"], [1, 0]),
    (["CT", "PET"], ["3: PT WB CTAC", "2: CT WB 3.0"], [1, 0]),
    (["CT", "PET", "MR_T1"], ["MR T2 fs", "MR T1", "suv", "ct"], [3, 2, 1]),
    (["CT", "PET"], ["MRHead", "T1"], [None, None]),
    (["CT", "PET"], ["PET"], [None, 0]),
]


@pytest.mark.parametrize(("channels", "names", "expected"), MAPPING)
def test_volumes_are_matched_by_name(channels, names, expected) -> None:
    modality = {"CT": "CT", "PET": "PET", "MR_T1": "MR"}
    volumes = [mapping.Volume(id=str(number), name=name) for number, name in enumerate(names)]
    matches = mapping.assign([(channel, modality[channel]) for channel in channels], volumes)
    assert [match.volumeId for match in matches] == [None if n is None else str(n) for n in expected]


def test_dicom_says_more_than_a_name() -> None:
    volumes = [
        mapping.Volume("a", "5: thigh PT", modality="CT", description="THIGH CT"),
        mapping.Volume("b", "6: thigh", modality="PT", description="SUV body weight"),
    ]
    ct, pet = mapping.assign([("CT", "CT"), ("PET", "PET")], volumes)
    assert (ct.volumeId, pet.volumeId) == ("a", "b")
    assert ct.reason == "series description contains 'ct'"
    assert pet.reason == "DICOM modality is PT"
    assert mapping.assign([("PET", "PET")], volumes, taken=["b"])[0].volumeId is None


def test_what_was_chosen_by_hand_stays(scene, phantom, tiny, logic) -> None:
    parameters = core.parameters()
    parameters.channel1 = phantom.PET
    logic.fillChannels(parameters, tiny)
    assert parameters.channel1.GetName() == "Phantom PET"
    assert parameters.channel2 is None, "the PET is taken, and a CT is no PET"
    assert logic.channelReasons(parameters, tiny) == ["Chosen by hand", "No volume is chosen"]
    parameters.channel1 = None
    logic.fillChannels(parameters, tiny)
    assert logic.channelReasons(parameters, tiny) == ["name contains 'ct'", "name contains 'pet'"]


def test_every_reason_not_to_run(scene, ready, phantom, tiny, logic, monkeypatch) -> None:
    def reason():
        fits, told = logic.readiness(ready, tiny)
        assert fits is (not told)
        return told

    assert logic.readiness(ready, None) == (False, "Choose a model.")
    ready.channel2 = None
    assert reason() == "Choose the PET volume."
    ready.channel2 = phantom.CT
    assert "is chosen for CT and for PET" in reason()
    ready.channel2 = phantom.PET
    ready.petValues = PetValues.BQML
    assert reason() == "Give the factor from Bq/mL to SUV."
    ready.suvFactor = 0.001
    assert reason() == ""
    ready.petValues = PetValues.DICOM
    assert "not in Slicer's DICOM database" in reason()
    ready.petValues = PetValues.SUV
    matrix = geometry.ijkToWorld(phantom.PET)
    far = matrix.copy()
    far[0, 3] += 5000
    phantom.PET.SetIJKToRASMatrix(geometry.to_matrix(far))
    assert "share no space" in reason()
    half = matrix.copy()
    half[:3, :3] /= 2
    phantom.PET.SetIJKToRASMatrix(geometry.to_matrix(half))
    assert reason() == ""
    assert "will be resampled" in logic.resampled(ready, tiny)["PET"]
    sheared = matrix.copy()
    sheared[:3, 1] += sheared[:3, 0]
    phantom.PET.SetIJKToRASMatrix(geometry.to_matrix(sheared))
    assert "sheared" in reason()
    phantom.PET.SetIJKToRASMatrix(geometry.to_matrix(matrix))
    from TeachFormerLib import installation

    monkeypatch.setattr(installation, "TORCH", installation.Package("torch", "absent_torch", "PyTorch, about 200 MB"))
    assert reason() == "To compute, TeachFormer needs: PyTorch, about 200 MB. Press Install."


def test_a_large_volume_needs_a_box_as_the_predictor_says(scene, ready, phantom, tiny, logic) -> None:
    """Apply and the predictor refuse the same images: whole, with a large box, with Place box's."""
    from TeachFormerCore.errors import InputError
    from TeachFormerCore.inference.predictor import Predictor
    from TeachFormerCore.inference.region import Region

    for node in (phantom.CT, phantom.PET):
        node.SetSpacing(8, 8, 8)  # 400 x 400 x 320 mm, and the model knows 200
    reference = sitk.GetImageFromArray(scene.util.arrayFromVolume(phantom.CT))
    grid = geometry.grid(phantom.CT)
    reference.SetOrigin(grid.origin)
    reference.SetSpacing(grid.spacing)
    reference.SetDirection(grid.direction)
    images = {"CT": reference, "PET": sitk.Cast(sitk.Abs(reference) / 200.0, sitk.sitkFloat32)}
    predictor = Predictor(tiny.folder, device="cpu")

    def both(region):
        told = fieldOfViewReason(tiny.card, grid, region)
        box = Region.from_ras(region) if region else None
        if not told:
            predictor.run(images, region=box)
            return True
        with pytest.raises(InputError, match=re.escape(told.split(".")[0])):
            predictor.run(images, region=box)
        return False

    assert not both(None)
    assert not logic.readiness(ready, tiny)[0]
    assert "place a box" in logic.readiness(ready, tiny)[1]
    assert logic.needsBox(ready, tiny)
    for name, orientation, offset in (("Red", 2, 1e4), ("Green", 1, 0.0), ("Yellow", 0, -1e4)):
        node = scene.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        matrix = geometry.to_array(node.GetSliceToRAS())
        matrix[orientation, 3] = offset  # far outside: the box is moved back into the volume
        node.GetSliceToRAS().DeepCopy(geometry.to_matrix(matrix))
    roi = logic.placeBox(ready, tiny)
    assert logic.readiness(ready, tiny) == (True, "")
    region = geometry.regionRas(roi)
    low, high = (np.asarray(bound) * [-1, -1, 1] for bound in grid.bounds())
    centre, half = np.array(region[:3]), np.array(region[3:])
    assert (half * 2 <= 200).all()
    assert (half * 2 > 180).all(), "no smaller than the voxels make it"
    assert (centre - half >= np.minimum(low, high) - 1e-6).all()
    assert (centre + half <= np.maximum(low, high) + 1e-6).all()
    assert both(region)
    roi.SetSize(150, 100, 400)
    assert not both(geometry.regionRas(roi))
    assert "The box covers" in logic.readiness(ready, tiny)[1]
    roi.SetCenter(9999, 0, 0)
    assert "outside the image" in logic.readiness(ready, tiny)[1]


def test_a_turned_box_is_refused_and_a_flipped_one_is_not(scene) -> None:
    roi = scene.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    assert geometry.regionRas(None) is None
    roi.SetCenter(1, -2, 3)
    roi.SetSize(10, 20, 30)
    assert geometry.regionRas(roi) == pytest.approx((1, -2, 3, 5, 10, 15))
    turn = np.array([[0, -1, 0, 1.0], [1, 0, 0, 2], [0, 0, -1, 3], [0, 0, 0, 1]])
    roi.SetAndObserveObjectToNodeMatrix(geometry.to_matrix(turn))
    roi.SetSize(10, 20, 30)
    np.testing.assert_allclose(geometry.regionRas(roi)[3:], (10, 5, 15))
    angle = np.deg2rad(3)
    turn[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    roi.SetAndObserveObjectToNodeMatrix(geometry.to_matrix(turn))
    with pytest.raises(geometry.GeometryError, match="rotated"):
        geometry.regionRas(roi)


def test_the_overlay_is_the_foreground_with_its_legend(scene, ready, phantom, tiny, logic) -> None:
    ready.uncertainty = scene.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "map of the CT")
    ready.uncertainty.SetAttribute("TeachFormer.result", "uncertainty")
    image, voxels = results.newImage(scene.util.arrayFromVolume(phantom.CT).shape, np.dtype(np.float32))
    voxels[:] = np.linspace(0, 1, voxels.size).reshape(voxels.shape)
    results.fillVolume(ready.uncertainty, image, np.eye(4))
    ready.overlay, ready.overlayOpacity, ready.overlayThreshold = Overlay.UNCERTAINTY, 0.7, 0.3
    assert logic.updateOverlay(ready) == ""
    composites = scene.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert len(composites) == 3
    for composite in composites:
        assert composite.GetBackgroundVolumeID() == phantom.CT.GetID()
        assert composite.GetForegroundVolumeID() == ready.uncertainty.GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(0.7)
    display = ready.uncertainty.GetDisplayNode()
    assert display.GetApplyThreshold()
    assert display.GetLowerThreshold() == pytest.approx(0.3)
    assert display.GetColorNode().GetAttribute("TeachFormer.colours") == "uncertainty"
    assert display.GetColorNode().GetNumberOfColors() == overlay.COLOURS
    legend = scene.vtkSlicerColorLogic.GetColorLegendDisplayNode(ready.uncertainty)
    assert legend.GetVisibility()
    assert legend.GetTitleText() == "Uncertainty"
    ready.overlay = Overlay.ATTENTION_GRADCAM
    assert logic.updateOverlay(ready) == "Grad-CAM (what speaks for the label) is not computed yet: press Apply."
    assert not legend.GetVisibility()
    ready.overlay = Overlay.NONE
    assert logic.updateOverlay(ready) == ""
    assert all(composite.GetForegroundVolumeID() is None for composite in composites)
    assert logic.inputVolumes() == [
        mapping.Volume(id=node.GetID(), name=node.GetName()) for node in (phantom.CT, phantom.PET)
    ], "results are no inputs"


def test_state_survives_saving_and_loading_the_scene(scene, ready, tiny, logic, tmp_path) -> None:
    ready.overlay, ready.overlayThreshold, ready.petValues = Overlay.ATTENTION_COARSE, 0.45, PetValues.BQML
    ready.batchInput = "/data/Fälle"
    scene.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.mrmlScene.Commit()
    core.new_scene()
    scene.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    scene.mrmlScene.Import()
    again = core.parameters()
    assert (again.model, again.overlay, again.petValues) == ("tiny", Overlay.ATTENTION_COARSE, PetValues.BQML)
    assert again.overlayThreshold == pytest.approx(0.45)
    assert again.batchInput == "/data/Fälle"
    assert again.channel1.GetName() == "Phantom CT"


def test_models_are_listed_and_searched(tiny) -> None:
    from TeachFormerLib.models import listModels

    names = [model.name for model in listModels()]
    assert names[0] == "sts_ct_pet", "the shipped ones come first"
    shipped = listModels()[0]
    assert shipped.shipped
    assert shipped.matches("SARCOMA pet")
    assert not shipped.matches("sarcoma liver")
    assert (shipped.segments, shipped.inputs, shipped.licence) == ("GTV", "CT + PET", "CC BY 3.0")
    (tiny.folder / "model.json").write_text("{", encoding="utf-8")
    broken = next(model for model in listModels() if model.folder == tiny.folder)
    assert "could not be read as JSON" in broken.fault
