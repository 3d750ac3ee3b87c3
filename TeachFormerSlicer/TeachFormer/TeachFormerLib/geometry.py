"""Where a volume and a box lie: MRML nodes (RAS) as the core's grids and regions (LPS)."""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A direction cosine may be off by this much and count as along an axis (0.06 degrees).
AXIS_TOLERANCE = 1e-3


class GeometryError(Exception):
    """A node that cannot be used as it is; the sentence says why and what to do."""


def to_array(matrix):
    """A ``vtkMatrix4x4`` as ``(4, 4)``."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def to_matrix(array):
    """``(4, 4)`` as a ``vtkMatrix4x4``."""
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row][column]))
    return matrix


def ijkToWorld(volumeNode):
    """``(4, 4)`` from voxel indices to RAS millimetres of the world: a linear parent transform is taken into account.

    Raises:
        GeometryError: a parent transform that is not linear, or one that shears.
    """
    local = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(local)
    matrix = to_array(local)
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None:
        toWorld = vtk.vtkMatrix4x4()
        if not transformNode.IsTransformToWorldLinear():
            raise GeometryError(
                _("'{name}' is under a transform that is not linear: harden it (right-click in Data), then try again.")
                .format(name=volumeNode.GetName())
            )  # fmt: skip
        transformNode.GetMatrixTransformToWorld(toWorld)
        matrix = to_array(toWorld) @ matrix
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise GeometryError(
            _("The voxels of '{name}' are sheared (its axes are not at right angles): resample it first, "
              "e.g. with Resample Scalar/Vector/DWI Volume.").format(name=volumeNode.GetName())
        )  # fmt: skip
    return matrix


def grid(volumeNode):
    """The core's grid (LPS) of a volume in the world.

    Raises:
        GeometryError: as `ijkToWorld`, or a volume without voxels.
    """
    from TeachFormerCore.data.grid import Grid

    image = volumeNode.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise GeometryError(_("'{name}' has no voxels: choose another volume.").format(name=volumeNode.GetName()))
    matrix = LPS_FROM_RAS @ ijkToWorld(volumeNode)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    return Grid(
        size=tuple(int(n) for n in image.GetDimensions()),
        spacing=tuple(spacing.tolist()),
        origin=tuple(matrix[:3, 3].tolist()),
        direction=tuple((matrix[:3, :3] / spacing).ravel().tolist()),
    )


def regionRas(roiNode):
    """Centre and half-size (RAS, mm, six numbers) of a markups box along the patient's axes; None without a box.

    Raises:
        GeometryError: the box is rotated, or flat.
    """
    if roiNode is None:
        return None
    matrix = to_array(roiNode.GetObjectToWorldMatrix())
    transformNode = roiNode.GetParentTransformNode()
    size = np.array(roiNode.GetSize(), float)
    if transformNode is not None and not transformNode.IsTransformToWorldLinear():
        raise GeometryError(_("The box is under a transform that is not linear: place a new one."))
    # Columns are the box's axes in the world; along the patient's axes each has one number that is not 0.
    axes = matrix[:3, :3] * size
    lengths = np.linalg.norm(axes, axis=0)
    if (lengths <= 0).any():
        return None
    if ((np.abs(axes / lengths) > AXIS_TOLERANCE).sum(axis=0) != 1).any():
        raise GeometryError(
            _("The box is rotated, and a rotated box cannot be used: press 'Place box' for one along the axes.")
        )
    half = np.abs(axes).sum(axis=1) / 2
    return tuple(float(v) for v in (*matrix[:3, 3], *half))


def viewedPoint():
    """The RAS point where the axial, sagittal and coronal slice views meet; None where there are no views."""
    found = {}
    for name, axis in (("Yellow", 0), ("Green", 1), ("Red", 2)):
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        if node is not None:
            found[axis] = node.GetSliceToRAS().GetElement(axis, 3)
    return tuple(found[axis] for axis in range(3)) if len(found) == 3 else None


def placeBox(roiNode, volumeNode, largestMm, centre=None):
    """Lays a box along the patient's axes into a volume: of a size, and inside the volume.

    Args:
        largestMm: left-right, front-back, along the body; None for the whole volume.
        centre: RAS; the volume's centre unless given. Moved so that the box stays inside.
    """
    low, high = grid(volumeNode).bounds()
    low, high = np.minimum(low * [-1, -1, 1], high * [-1, -1, 1]), np.maximum(low * [-1, -1, 1], high * [-1, -1, 1])
    size = high - low if largestMm is None else np.minimum(np.asarray(largestMm, float), high - low)
    middle = (low + high) / 2 if centre is None else np.asarray(centre, float)
    middle = np.clip(middle, low + size / 2, high - size / 2)
    roiNode.SetAndObserveTransformNodeID(None)
    roiNode.SetAndObserveObjectToNodeMatrix(vtk.vtkMatrix4x4())
    roiNode.SetCenter(*(float(v) for v in middle))
    roiNode.SetSize(*(float(v) for v in size))
