"""Slice views as Slicer draws them, offscreen: background, foreground, segmentation, colour legend.

The real classes of slicer-core and VTK, put together as the application's slice view does; no display is needed.
"""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


class SliceView:
    """One slice view of the scene, ``Red`` (axial), ``Yellow`` (sagittal) or ``Green`` (coronal).

    As in the application, it is there before what it shows.

    Args:
        size: width and height in pixels.
    """

    def __init__(self, name="Red", size=(400, 400)):
        self.node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetSliceNode(self.node)
        composite = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceCompositeNode{name}")
        self.logic.SetSliceCompositeNode(composite)
        self.node.SetDimensions(*size, 1)
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        # Before the displayable managers, which draw over it.
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.image = vtk.vtkActor2D()
        self.image.SetMapper(self.mapper)
        self.image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self.image)
        # The legend is drawn where the application's slice logic says that its volume is shown.
        slicer.mrmlScene.slice_logics.AddItem(self.logic)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.SetRenderer(self.renderer)
        self._kept = []
        for kind in ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLColorLegendDisplayableManager"):
            manager = getattr(slicer, kind)()
            manager.SetMRMLApplicationLogic(slicer.mrmlScene.application_logic)
            self.managers.AddDisplayableManager(manager)
            self._kept.append(manager)
        self.managers.SetMRMLDisplayableNode(self.node)

    def look_at(self, ras, *, field_of_view_mm):
        """Centres the view on a point and shows so many millimetres of width."""
        self.node.JumpSliceByCentering(*ras)
        width, height = self.node.GetDimensions()[:2]
        self.node.SetFieldOfView(field_of_view_mm, field_of_view_mm * height / width, 1.0)
        self.node.UpdateMatrices()

    def render(self):
        """The picture, ``(height, width, 3)`` uint8, the first row at the top."""
        self.logic.UpdatePipeline()
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())  # another one where layers came or went
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _depth = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()

    def pixels_of(self, ras):
        """Rows and columns of points ``(..., 3)`` in RAS, in the picture."""
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), matrix)
        to_pixels = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        points = np.asarray(ras, float)
        x, y = (to_pixels[:2, :3] @ points.reshape(-1, 3).T) + to_pixels[:2, 3:]
        rows = self.node.GetDimensions()[1] - 1 - np.round(y).astype(int)
        return rows.reshape(points.shape[:-1]), np.round(x).astype(int).reshape(points.shape[:-1])


def montage(pictures):
    """Pictures of one height side by side."""
    return np.concatenate(pictures, axis=1)


def save(picture, file):
    """As PNG."""
    from PIL import Image

    Image.fromarray(picture).save(file)
