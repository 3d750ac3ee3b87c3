"""Stand-ins that the Logic needs: translation (none), the parameter node wrapper; everything else is slicer-core's."""

import sys
import types
from pathlib import Path

from . import parameter_node

MODULE = Path(__file__).parents[3] / "TeachFormerSlicer" / "TeachFormer"


def install():
    """The package ``slicer`` as the module's Qt-free parts find it in the application; answers it."""
    import slicer
    import slicer.util

    if "slicer.i18n" not in sys.modules:
        i18n = types.ModuleType("slicer.i18n")
        i18n.tr = lambda text: text
        i18n.translate = lambda _context, text: text
        wrapper = types.ModuleType("slicer.parameterNodeWrapper")
        wrapper.parameterNodeWrapper = parameter_node.parameterNodeWrapper
        wrapper.WithinRange = parameter_node.WithinRange
        sys.modules.update({"slicer.i18n": i18n, "slicer.parameterNodeWrapper": wrapper})
        slicer.i18n, slicer.parameterNodeWrapper = i18n, wrapper
    if str(MODULE) not in sys.path:
        sys.path.insert(0, str(MODULE))
    return slicer


def new_scene():
    """An empty scene as the application sets it up: subject hierarchy, three slice views with their composites."""
    import vtk

    slicer = install()
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logic = slicer.vtkMRMLApplicationLogic()
    logic.SetMRMLScene(scene)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())  # as the module Colors does
    colours = slicer.vtkMRMLColorLogic()
    colours.SetMRMLScene(scene)  # brings the default colours, the grey of volumes among them
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.SetName(name)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node = scene.AddNode(node)
        node.SetOrientation(orientation)
        composite = slicer.vtkMRMLSliceCompositeNode()
        composite.SetLayoutName(name)
        composite.SetSingletonTag(name)
        scene.AddNode(composite)
    scene.slice_logics = vtk.vtkCollection()
    logic.SetSliceLogics(scene.slice_logics)
    scene.application_logic, scene.colour_logic = logic, colours  # they must live as long as the scene
    return scene


def parameters():
    """The module's parameter node in the scene."""
    import slicer
    from TeachFormerLib.parameters import TeachFormerParameterNode

    node = slicer.mrmlScene.GetSingletonNode("TeachFormer", "vtkMRMLScriptedModuleNode")
    if node is None:
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag("TeachFormer")
        node.SetModuleName("TeachFormer")
        node.SetAttribute("ModuleName", "TeachFormer")
        node = slicer.mrmlScene.AddNode(node)
    return TeachFormerParameterNode(node)


def volume_from(image, name):
    """A SimpleITK image as a scalar volume node."""
    import numpy as np
    import SimpleITK as sitk
    import slicer.util
    from TeachFormerLib import geometry

    node = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), name=name)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    node.SetIJKToRASMatrix(geometry.to_matrix(geometry.LPS_FROM_RAS @ matrix))
    node.CreateDefaultDisplayNodes()
    return node


def tilted(image, degrees=20.0):
    """A SimpleITK image: the same voxels on a grid that is turned about z and moved."""
    import numpy as np
    import SimpleITK as sitk

    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    made = sitk.Image(image)
    made.SetDirection((turn @ np.reshape(image.GetDirection(), (3, 3))).ravel().tolist())
    made.SetOrigin([value + 7.5 for value in image.GetOrigin()])
    return made
