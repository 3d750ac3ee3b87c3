"""The 3D surfaces: meshed by a real process, where the mask is, as large as it, and never twice for nothing."""

import time

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from stand_ins import core

core.install()

from TeachFormerLib import background, geometry, results, surface  # noqa: E402

LABELS = [
    {"value": value, "name": name, "color": [9, 9, 9], "terminology": None} for value, name in ((1, "a"), (2, "b"))
]
RADIUS = 9.0


def ball(centre, shape=(40, 50, 60), radius=RADIUS):
    """``(z, y, x)``: a ball of voxels."""
    z, y, x = np.indices(shape)
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2


@pytest.fixture
def segmentation(scene):
    """Two segments on a left-handed, tilted grid with long voxels; the second one ends at the grid's edge."""
    angle = np.deg2rad(20)
    matrix = np.eye(4)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    matrix[:3, :3] = turn * np.array([1.0, 1.0, 2.0])
    matrix[:3, 3] = (5, -7, 11)
    label = ball((20, 20, 20)) + 2 * ball((59, 25, 20))
    reference = scene.util.addVolumeFromArray(label.astype(np.uint8), name="CT")
    reference.SetIJKToRASMatrix(geometry.to_matrix(matrix))
    node = scene.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    results.beginSegmentation(node, reference)
    for entry, image in results.segmentImages(label, matrix, LABELS):
        results.addSegment(node, entry, image)
    node.matrix, node.label, node.reference = matrix, label, reference
    return node


def finish(run, seconds=60.0):
    """Polls to the end; the longest poll in seconds."""
    longest, end = 0.0, time.monotonic() + seconds
    while run.running:
        assert time.monotonic() < end, run.state
        start = time.perf_counter()
        run.poll()
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.01)
    return longest


def lacking(node):
    """Names of the segments that lack a surface."""
    return [node.GetSegmentation().GetSegment(identifier).GetName() for identifier in surface.lacking(node)]


def mesh_of(node, number):
    return node.GetSegmentation().GetNthSegment(number).GetRepresentation(surface.surfaceName())


def test_surfaces_are_closed_and_lie_where_the_masks_are(segmentation) -> None:
    import vtk

    assert lacking(segmentation) == ["a", "b"]
    assert not surface.begun(segmentation)
    run = surface.SurfaceRun(segmentation)
    folder = run._folder
    assert finish(run) < 0.1
    assert run.failure is None
    assert lacking(segmentation) == []
    for number, value in enumerate((1, 2)):
        mesh = mesh_of(segmentation, number)
        measured = vtk.vtkMassProperties()
        measured.SetInputData(mesh)
        voxels = np.argwhere(segmentation.label == value)[:, ::-1]
        assert measured.GetVolume() == pytest.approx(2.0 * len(voxels), rel=0.06), "smoothing takes a little"
        edges = vtk.vtkFeatureEdges()
        edges.SetInputData(mesh)
        edges.FeatureEdgesOff()
        edges.Update()
        assert edges.GetOutput().GetNumberOfCells() == 0, "no edge is open, also at the grid's edge"
        centre = (segmentation.matrix @ [*voxels.mean(axis=0), 1])[:3]
        bounds = np.reshape(mesh.GetBounds(), (3, 2))
        if value == 1:
            np.testing.assert_allclose(bounds.mean(axis=1), centre, atol=0.5)
            points = vtk.util.numpy_support.vtk_to_numpy(mesh.GetPoints().GetData())
            normals = vtk.util.numpy_support.vtk_to_numpy(mesh.GetPointData().GetNormals())
            assert (((points - centre) * normals).sum(axis=1) > 0).mean() > 0.99, "normals look outwards"
    end = time.monotonic() + 5
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not folder.exists()


def test_a_segment_that_is_filled_again_waits_for_its_surface(segmentation, monkeypatch) -> None:
    """Slicer would mesh it at once, since the other one has a surface; that would hold the window."""
    finish(surface.SurfaceRun(segmentation))
    entry, image = results.segmentImages(2 * ball((20, 20, 20)) // 2, segmentation.matrix, LABELS)[0]
    results.addSegment(segmentation, entry, image)
    assert lacking(segmentation) == ["a"]
    assert surface.begun(segmentation)
    run = surface.SurfaceRun(segmentation)
    # Edited while the mesh is on its way: what arrives is of another mask, and is not shown.
    image.Modified()
    finish(run)
    assert lacking(segmentation) == ["a"]
    finish(surface.SurfaceRun(segmentation))
    assert lacking(segmentation) == []


def test_an_empty_mask_needs_no_surface(scene) -> None:
    reference = scene.util.addVolumeFromArray(np.zeros((4, 4, 4), np.uint8))
    node = scene.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    results.beginSegmentation(node, reference)
    for entry, image in results.segmentImages(np.zeros((4, 4, 4), np.uint8), np.eye(4), LABELS):
        results.addSegment(node, entry, image)
    assert lacking(node) == []


def test_a_process_that_fails_is_told(segmentation, monkeypatch) -> None:
    import sys

    monkeypatch.setattr(background, "launcher", lambda: [sys.executable, "-c", "import absent_vtk"])
    run = surface.SurfaceRun(segmentation)
    finish(run)
    assert run.state == surface.FAILED
    assert "No module named 'absent_vtk'" in run.failure.original


def test_a_scene_that_is_closed_does_not_wait_for_a_mesh(segmentation, monkeypatch) -> None:
    """Not even where nothing but a kill ends the process; its folder goes after it."""
    import sys

    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(background, "launcher", lambda: [sys.executable, "-c", code])
    run = surface.SurfaceRun(segmentation)
    end = time.monotonic() + 30
    while run._command is None or "deaf" not in run._command.log:
        assert time.monotonic() < end
        run.poll()
    start = time.perf_counter()
    run.abandon()
    assert time.perf_counter() - start < 0.1
    assert run.state == surface.FAILED
    run.close()
    assert not run._folder.exists()
