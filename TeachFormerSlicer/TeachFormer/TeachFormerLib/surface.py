"""The 3D surfaces of a segmentation, meshed in a process of its own: of a large mask that takes seconds.

Slicer would mesh in the window's thread; its own surfaces replace these as soon as a segment is edited.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from . import geometry, results
from .background import BackgroundCommand
from .results import labelmapName, surfaceName
from .task import TIDY_S, Task, tidied

WRITING, MESHING, READING, DONE, FAILED = "writing", "meshing", "reading", "done", "failed"


def lacking(segmentationNode):
    """Ids of the segments that have voxels and no surface."""
    segmentation, found = segmentationNode.GetSegmentation(), []
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        image, mesh = (segment.GetRepresentation(name) for name in (labelmapName(), surfaceName()))
        if image is not None and image.GetNumberOfPoints() > 1 and (mesh is None or not mesh.GetNumberOfPoints()):
            found.append(segmentation.GetNthSegmentID(number))
    return found


def begun(segmentationNode):
    """Whether some segments have a surface, so that those without one are missing from the 3D view."""
    segmentation = segmentationNode.GetSegmentation()
    return any(
        segmentation.GetNthSegment(number).GetRepresentation(surfaceName()) is not None
        for number in range(segmentation.GetNumberOfSegments())
    )


@dataclass(frozen=True)
class _Segment:
    """A segment as it was when its surface was asked for; ``low`` is the index of its image's first voxel."""

    id: str
    segment: object
    image: object
    modified: int
    voxels: np.ndarray
    value: int
    matrix: np.ndarray
    low: tuple


class SurfaceRun:
    """The missing surfaces of a segmentation on their way; `poll` it while it is ``running``.

    Attributes:
        failure: what went wrong, once failed.
    """

    def __init__(self, segmentationNode):
        self.state, self.failure = WRITING, None
        self._node = segmentationNode
        self._folder = Path(tempfile.mkdtemp(prefix="TeachFormer-"))
        self._command, self._meshes = None, {}
        segmentation = segmentationNode.GetSegmentation()
        # Views of the voxels and copies of the matrices, in the main thread; the rest needs no node.
        self._segments = []
        for identifier in lacking(segmentationNode):
            segment = segmentation.GetSegment(identifier)
            image = segment.GetRepresentation(labelmapName())
            low = image.GetExtent()[::2]
            voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
            matrix = vtk.vtkMatrix4x4()
            image.GetImageToWorldMatrix(matrix)
            # The image is kept: the array is a view of its memory.
            self._segments.append(_Segment(identifier, segment, image, image.GetMTime(), voxels,
                                           segment.GetLabelValue(), geometry.to_array(matrix), low))  # fmt: skip
        self._task = Task(self._write, _("The masks could not be handed over"))

    @property
    def running(self):
        return self.state not in (DONE, FAILED)

    @property
    def threaded(self):
        """Whether a thread is at work."""
        return self.state != MESHING and self._task.running

    def poll(self):
        """Takes up what has happened; returns at once."""
        if self.state in (WRITING, READING) and not self._task.running:
            if self._task.failure:
                self._fail(self._task.failure)
            elif self.state == WRITING:
                self.state, self._command = MESHING, BackgroundCommand("surfaces", self._folder)
            else:
                self._show()
        elif self.state == MESHING:
            self._command.poll()
            if self._command.running:
                return
            if self._command.failure:
                self._fail(self._command.failure)
            else:
                self.state, self._task = READING, Task(self._read, _("The surfaces could not be taken up"))

    def abandon(self):
        """Ends it here and now; what is left of its process and folder goes by itself within 2 s."""
        if self._command:
            self._command.stop()
        if self.running:
            self._end(FAILED)

    def close(self):
        """Ends it and waits until nothing is left of it, for when the module goes."""
        self.abandon()
        self._task.wait(TIDY_S)

    def _write(self):
        for number, one in enumerate(self._segments):
            # One voxel of nothing around, so that a mask at the edge of its image is closed.
            part, first = results.cut(one.voxels == one.value)
            shift = np.eye(4)
            shift[:3, 3] = np.add(first, one.low) - 1
            np.save(self._folder / f"{number}-mask.npy", np.pad(part, 1).astype(np.uint8))
            np.save(self._folder / f"{number}-matrix.npy", one.matrix @ shift)

    def _read(self):
        for number, one in enumerate(self._segments):
            with np.load(self._folder / f"{number}-surface.npz") as arrays:
                self._meshes[one.id] = polyData(arrays["points"], arrays["triangles"], arrays["normals"])

    def _show(self):
        segmentation = self._node.GetSegmentation()
        for one in self._segments:
            # A segment that was changed or removed meanwhile is another one.
            same = segmentation.GetSegment(one.id) is one.segment and one.image.GetMTime() == one.modified
            if same and one.segment.GetRepresentation(labelmapName()) is one.image:
                one.segment.AddRepresentation(surfaceName(), self._meshes[one.id])
        # Nothing is left to convert: this tells whoever draws.
        self._node.CreateClosedSurfaceRepresentation()
        self._end(DONE)

    def _fail(self, failure):
        self.failure = failure
        self._end(FAILED)

    def _end(self, state):
        self.state, self._segments = state, []
        self._task = tidied(self._folder, self._task, self._command)


def polyData(points, triangles, normals):
    """A mesh of float points ``(n, 3)``, point numbers ``(3 * m,)`` and normals ``(n, 3)``."""
    mesh, places, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    places.SetData(numpy_to_vtk(points, deep=True))
    offsets = np.arange(0, len(triangles) + 1, 3, dtype=np.int64)
    cells.SetData(numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(triangles, deep=True))
    mesh.SetPoints(places)
    mesh.SetPolys(cells)
    directions = numpy_to_vtk(normals, deep=True)
    directions.SetName("Normals")
    mesh.GetPointData().SetNormals(directions)
    return mesh
