"""A map (attention, uncertainty) over the slice views: own colours, threshold, opacity, legend."""

import numpy as np
import slicer
import slicer.util
from slicer.i18n import tr as _

COLOURS = 256
# Anchors (r, g, b) that the colours run through from 0 to 1.
ATTENTION = ((0.05, 0.03, 0.25), (0.45, 0.10, 0.50), (0.85, 0.25, 0.30), (0.98, 0.62, 0.15), (0.99, 0.97, 0.70))
UNCERTAINTY = ((0.03, 0.12, 0.30), (0.05, 0.40, 0.55), (0.25, 0.68, 0.60), (0.72, 0.86, 0.55), (1.00, 0.98, 0.80))
TABLES = {"attention": ATTENTION, "uncertainty": UNCERTAINTY}
ATTRIBUTE = "TeachFormer.colours"


def colourNode(name):
    """The scene's colour table ``attention`` or ``uncertainty``, made where it is missing."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetAttribute(ATTRIBUTE) == name:
            return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(f"TeachFormer {name}")
    node.SetAttribute(ATTRIBUTE, name)
    node.SetHideFromEditors(True)
    node.SetNumberOfColors(COLOURS)
    anchors = np.array(TABLES[name])
    places = np.linspace(0, 1, len(anchors))
    for number, at in enumerate(np.linspace(0, 1, COLOURS)):
        node.SetColor(number, f"{at:.2f}", *(float(np.interp(at, places, anchors[:, c])) for c in range(3)), 1.0)
    node.GetLookupTable().SetTableRange(0, COLOURS - 1)
    slicer.mrmlScene.AddNode(node)
    return node


def show(volumeNode, *, background, kind, title, opacity, threshold, legend):
    """Shows a map as the foreground of every slice view.

    Values below the threshold are transparent: in the slice views a colour is either drawn or not, so the rest of the
    transparency is the layer's opacity.

    Args:
        kind: of the colours, ``attention`` or ``uncertainty``.
        threshold: 0..1.
    """
    display = volumeNode.GetDisplayNode()
    display.SetAndObserveColorNodeID(colourNode(kind).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.AutoThresholdOff()
    display.SetThreshold(float(threshold), 1.0)
    display.ApplyThresholdOn()
    slicer.util.setSliceViewerLayers(background=background, foreground=volumeNode, foregroundOpacity=float(opacity))
    _showLegend(volumeNode, title, visible=legend)


def hide(volumeNodes):
    """Takes the maps out of the slice views, and their legends with them."""
    ours = {node.GetID() for node in volumeNodes if node is not None}
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetForegroundVolumeID() in ours:
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)
    for node in volumeNodes:
        if node is not None:
            _showLegend(node, "", visible=False)


def _showLegend(volumeNode, title, *, visible):
    logic = getattr(slicer, "vtkSlicerColorLogic", None) or slicer.modules.colors.logic()
    legend = logic.GetColorLegendDisplayNode(volumeNode)
    if legend is None and visible:
        legend = logic.AddDefaultColorLegendDisplayNode(volumeNode)
    if legend is None:
        return
    if visible:
        legend.SetTitleText(title)
        legend.SetNumberOfLabels(6)
    legend.SetVisibility(bool(visible))


def titles():
    """What each map is called."""
    return {
        "attention_fine": _("Attention, fine"),
        "attention_coarse": _("Attention, coarse"),
        "attention_gradcam": _("Grad-CAM"),
        "uncertainty": _("Uncertainty"),
    }
