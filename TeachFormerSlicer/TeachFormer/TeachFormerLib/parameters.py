"""The state of the panel, kept in the scene: it survives saving and loading."""

import enum
from typing import Annotated

from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

# As many selectors as the panel has; a model with more channels is for the command line.
CHANNELS = 4


class Overlay(enum.Enum):
    """What lies over the slice views."""

    NONE = "none"
    ATTENTION_FINE = "attention_fine"
    ATTENTION_COARSE = "attention_coarse"
    ATTENTION_GRADCAM = "attention_gradcam"
    UNCERTAINTY = "uncertainty"

    def label(self):
        return {
            "none": _("None"),
            "attention_fine": _("Attention, fine (last decoder layer)"),
            "attention_coarse": _("Attention, coarse (deep encoder)"),
            "attention_gradcam": _("Grad-CAM (what speaks for the label)"),
            "uncertainty": _("Uncertainty (entropy)"),
        }[self.value]


class PetValues(enum.Enum):
    """What the voxels of a PET volume are."""

    SUV = "suv"
    DICOM = "dicom"
    BQML = "bqml"

    def label(self):
        return {
            "suv": _("SUV (body weight)"),
            "dicom": _("From its DICOM series (computed from the header)"),
            "bqml": _("Bq/mL, times the factor beside"),
        }[self.value]


@parameterNodeWrapper
class TeachFormerParameterNode:
    """Names are those of the .ui files' ``SlicerParameterName``; ``model`` and ``device`` are set by the panel."""

    model: str
    device: str = "auto"
    channel1: vtkMRMLScalarVolumeNode
    channel2: vtkMRMLScalarVolumeNode
    channel3: vtkMRMLScalarVolumeNode
    channel4: vtkMRMLScalarVolumeNode
    petValues: PetValues = PetValues.SUV
    suvFactor: Annotated[float, WithinRange(0, 1000)] = 0.0
    region: vtkMRMLMarkupsROINode
    segmentation: vtkMRMLSegmentationNode
    show3D: bool = False
    overlay: Overlay = Overlay.NONE
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    overlayThreshold: Annotated[float, WithinRange(0, 1)] = 0.3
    overlayLegend: bool = True
    attentionFine: vtkMRMLScalarVolumeNode
    attentionCoarse: vtkMRMLScalarVolumeNode
    gradCam: vtkMRMLScalarVolumeNode
    uncertainty: vtkMRMLScalarVolumeNode
    statistics: vtkMRMLTableNode
    batchInput: str
    batchOutput: str
    batchResume: bool = True
    trainData: str
    trainConfiguration: str
    trainRun: str


# Map of the core -> field of the parameter node that holds its volume.
MAP_FIELDS = {
    "attention_fine": "attentionFine",
    "attention_coarse": "attentionCoarse",
    "attention_gradcam": "gradCam",
    "uncertainty": "uncertainty",
}
