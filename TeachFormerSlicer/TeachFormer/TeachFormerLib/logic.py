"""What the panel does, without the panel: channels, readiness, runs, results; MRML and NumPy only."""

import slicer
import slicer.util
from slicer.i18n import tr as _

from . import geometry, installation, mapping, overlay, results
from .core import find_core
from .models import listModels
from .parameters import CHANNELS, MAP_FIELDS, Overlay, PetValues
from .run import MAPS, SegmentationRun

# A box is computed with every voxel it touches, and on a tilted grid with all that it spans: one that is as large as
# the model may see can be too large by a voxel, or by the tilt.
BOX_PARTS = [1 - 0.02 * step for step in range(35)]
# Volumes of ours, which are results and no inputs.
RESULT_ATTRIBUTE = "TeachFormer.result"


class Logic:
    """Stateless: every method takes the parameter node, whose fields it reads and fills."""

    def models(self):
        """The installed models; none where TeachFormerCore is missing."""
        return listModels() if find_core() else []

    def model(self, name):
        """The installed model of a name, or None."""
        return next((model for model in self.models() if model.name == name), None)

    # --- inputs

    def inputVolumes(self):
        """What is known of each volume that can be an input."""
        return [
            describe(node)
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if not node.IsA("vtkMRMLLabelMapVolumeNode")
            and not node.GetHideFromEditors()
            and not node.GetAttribute(RESULT_ATTRIBUTE)
        ]

    def fillChannels(self, parameters, model):
        """Chooses a volume for every channel that has none and for which one is recognised; what was chosen stays."""
        channels = model.channels[:CHANNELS]
        chosen = [getattr(parameters, f"channel{number + 1}") for number in range(len(channels))]
        taken = [node.GetID() for node in chosen if node is not None]
        for number, match in enumerate(mapping.assign(channels, self.inputVolumes(), taken=taken)):
            if chosen[number] is None and match.volumeId:
                setattr(parameters, f"channel{number + 1}", slicer.mrmlScene.GetNodeByID(match.volumeId))

    def channelReasons(self, parameters, model):
        """Per channel, why its volume fits, or that it was chosen by hand, or that there is none."""
        reasons = []
        for number, match in enumerate(mapping.assign(model.channels[:CHANNELS], self.inputVolumes())):
            node = getattr(parameters, f"channel{number + 1}")
            if node is None:
                reasons.append(_("No volume is chosen"))
            else:
                reasons.append(match.reason if match.volumeId == node.GetID() else _("Chosen by hand"))
        return reasons

    def volumes(self, parameters, model):
        """Volume node by channel name, in the model's order; channels without one are left out."""
        nodes = {name: getattr(parameters, f"channel{n + 1}") for n, (name, _m) in enumerate(model.channels[:CHANNELS])}
        return {name: node for name, node in nodes.items() if node is not None}

    def resampled(self, parameters, model):
        """Per channel that lies on another grid than the reference: a sentence that says so."""
        volumes = self.volumes(parameters, model)
        if not volumes:
            return {}
        names = list(volumes)
        try:
            reference = geometry.grid(volumes[names[0]])
            return {
                name: _("will be resampled from {grid} onto the grid of {reference}").format(
                    grid=geometry.grid(volumes[name]).describe(), reference=names[0]
                )
                for name in names[1:]
                if not geometry.grid(volumes[name]).same_as(reference)
            }
        except geometry.GeometryError:
            return {}

    # --- readiness

    def readiness(self, parameters, model):
        """Whether a run can be started, and if not the first reason, a sentence for the status line."""
        reason = (
            self._modelReason(model)
            or self._installationReason(model)
            or self._volumesReason(parameters, model)
            or self._geometryReason(parameters, model)
        )
        return (not reason), reason

    def _modelReason(self, model):
        if find_core() is None:
            return _("TeachFormerCore was not found beside this module: install the extension again.")
        if model is None:
            return _("Choose a model.")
        if model.fault:
            return model.fault
        if len(model.channels) > CHANNELS:
            return _("{model} has {count} channels, and this panel serves {most}: use the command line.").format(
                model=model.name, count=len(model.channels), most=CHANNELS
            )
        return ""

    def _installationReason(self, model):
        needed = installation.missing(model)
        return installation.sentence(needed) + ". " + _("Press Install.") if needed else ""

    def _volumesReason(self, parameters, model):
        volumes = self.volumes(parameters, model)
        for channel in model.card["channels"]:
            if channel["name"] not in volumes and not channel["optional"]:
                return _("Choose the {channel} volume.").format(channel=channel["name"])
        if not volumes:
            return _("Choose at least one volume.")
        names = {}
        for name, node in volumes.items():
            if node.GetID() in names:
                return _("'{node}' is chosen for {first} and for {second}: choose one volume per channel.").format(
                    node=node.GetName(), first=names[node.GetID()], second=name
                )
            names[node.GetID()] = name
        if parameters.petValues == PetValues.BQML and self.petChannels(model) and parameters.suvFactor <= 0:
            return _("Give the factor from Bq/mL to SUV.")
        if parameters.petValues == PetValues.DICOM:
            for name in self.petChannels(model):
                if name in volumes and not dicomFiles(volumes[name]):
                    return _(
                        "The DICOM series of '{node}' is not in Slicer's DICOM database: choose another kind of values."
                    ).format(node=volumes[name].GetName())
                if name in volumes and volumes[name].GetParentTransformNode() is not None:
                    return _("'{node}' is under a transform, which its DICOM series is not: harden the others instead, "
                             "or give its values as SUV.").format(node=volumes[name].GetName())  # fmt: skip
        return ""

    def _geometryReason(self, parameters, model):
        try:
            volumes = self.volumes(parameters, model)
            grids = {name: geometry.grid(node) for name, node in volumes.items()}
            first = next(iter(grids))
            for name, grid in grids.items():
                if name != first and not grids[first].overlaps(grid):
                    return _("{first} and {second} share no space: check that they are of one patient and one "
                             "examination, or register them first.").format(first=first, second=name)  # fmt: skip
            region = geometry.regionRas(parameters.region)
        except geometry.GeometryError as error:
            return str(error)
        return fieldOfViewReason(model.card, grids[first], region)

    def petChannels(self, model):
        """The names of a model's PET channels."""
        return [name for name, modality in model.channels if modality == "PET"]

    def needsBox(self, parameters, model):
        """Whether the reference is larger than the model may see."""
        try:
            volumes = self.volumes(parameters, model)
            return bool(volumes) and bool(
                fieldOfViewReason(model.card, geometry.grid(next(iter(volumes.values()))), None)
            )
        except geometry.GeometryError:
            return False

    def placeBox(self, parameters, model):
        """Lays the model's largest box around the point where the slice views meet; made where there is none.

        Raises:
            geometry.GeometryError: the reference cannot be used.
        """
        volumes = self.volumes(parameters, model)
        if not volumes:
            raise geometry.GeometryError(_("Choose the volumes first."))
        node = parameters.region
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "TeachFormer box")
            node.CreateDefaultDisplayNodes()
        reference, largest = next(iter(volumes.values())), model.card["field_of_view_mm"]
        grid = geometry.grid(reference)
        for part in BOX_PARTS:
            size = None if largest is None else [part * mm for mm in largest]
            geometry.placeBox(node, reference, size, centre=geometry.viewedPoint())
            if not fieldOfViewReason(model.card, grid, geometry.regionRas(node)):
                break
        if node.GetDisplayNode():
            node.GetDisplayNode().SetFillVisibility(False)
        parameters.region = node
        return node

    # --- run

    def startRun(self, parameters, model):
        """Starts a run with what is chosen.

        Raises:
            ValueError: it is not ready; with the reason.
        """
        ready, reason = self.readiness(parameters, model)
        if not ready:
            raise ValueError(reason)
        volumes = self.volumes(parameters, model)
        pet = [name for name in self.petChannels(model) if name in volumes]
        dicom = {name: dicomFiles(volumes[name]) for name in pet} if parameters.petValues == PetValues.DICOM else {}
        options = {
            "region": geometry.regionRas(parameters.region),
            "device": parameters.device,
            "pet_units": "bqml" if parameters.petValues == PetValues.BQML and pet else "suv",
            "suv_factor": parameters.suvFactor if parameters.petValues == PetValues.BQML and pet else None,
            "dicom": dicom,
        }
        # Grad-CAM costs a pass back through the network: only where it is looked at.
        wanted = [
            name for name in MAPS if name != "attention_gradcam" or parameters.overlay is Overlay.ATTENTION_GRADCAM
        ]
        return SegmentationRun(model, volumes, options, maps=wanted)

    def showSteps(self, run, parameters):
        """Turns a finished run into nodes, a part at a time: iterate, and let the window breathe in between.

        Nodes that the parameter node holds are filled again; missing ones are made.
        """
        reference = slicer.mrmlScene.GetNodeByID(run.referenceId)
        if reference is None:
            raise LookupError(_("The reference volume was removed while the computation ran."))
        name = reference.GetName()
        node = parameters.segmentation or self._made(
            "vtkMRMLSegmentationNode", _("{name} segmentation").format(name=name)
        )
        results.beginSegmentation(node, reference)
        for entry, image in run.segments:
            results.addSegment(node, entry, image)
            yield
        parameters.segmentation = node
        yield
        for kind, field in MAP_FIELDS.items():
            if kind not in run.images:
                continue
            volume = getattr(parameters, field) or self._made(
                "vtkMRMLScalarVolumeNode", f"{name} {overlay.titles()[kind].lower()}"
            )
            volume.SetAttribute(RESULT_ATTRIBUTE, kind)
            results.fillVolume(volume, run.images[kind], run.ijkToWorld)
            setattr(parameters, field, volume)
            yield
        table = parameters.statistics or self._made("vtkMRMLTableNode", _("{name} statistics").format(name=name))
        results.fillTable(table, run.statistics)
        parameters.statistics = table
        yield
        slicer.util.setSliceViewerLayers(background=reference)
        self.updateOverlay(parameters)

    def summary(self, run):
        """One line: what was found, how long it took, on what, and what was done on the way."""
        figures = run.statistics["labels"]
        found = ", ".join(f"{entry['name']} {entry['volume_ml']:.1f} mL" for entry in figures if entry["voxels"])
        parts = [
            found or _("Nothing was found"),
            _("{seconds:.1f} s on {device}").format(seconds=run.seconds, device=run.result.get("device", "?")),
        ]
        if run.result.get("runtime"):
            parts[-1] += f" ({run.result['runtime']})"
        return "; ".join(parts) + "." + "".join(" " + notice for notice in run.notices)

    # --- overlay

    def overlayVolume(self, parameters):
        """The volume of the overlay that is chosen, or None."""
        field = MAP_FIELDS.get(parameters.overlay.value)
        return getattr(parameters, field) if field else None

    def updateOverlay(self, parameters):
        """Shows the overlay that is chosen, or none; answers a sentence where it cannot be shown."""
        shown = self.overlayVolume(parameters)
        others = [getattr(parameters, field) for field in MAP_FIELDS.values()]
        overlay.hide([node for node in others if node is not None and node is not shown])
        if parameters.overlay is Overlay.NONE:
            return ""
        if shown is None or shown.GetImageData() is None:
            return _("{overlay} is not computed yet: press Apply.").format(overlay=parameters.overlay.label())
        reference = next((n for n in [parameters.channel1, parameters.channel2] if n is not None), "keep-current")
        overlay.show(
            shown,
            background=reference,
            kind="uncertainty" if parameters.overlay is Overlay.UNCERTAINTY else "attention",
            title=overlay.titles()[parameters.overlay.value],
            opacity=parameters.overlayOpacity,
            threshold=parameters.overlayThreshold,
            legend=parameters.overlayLegend,
        )
        return ""

    def _made(self, kind, name):
        node = slicer.mrmlScene.AddNewNodeByClass(kind, slicer.mrmlScene.GenerateUniqueName(name))
        if node.IsA("vtkMRMLDisplayableNode"):
            node.CreateDefaultDisplayNodes()
        return node


def fieldOfViewReason(card, grid, region):
    """The sentence that the worker would refuse the images with, or an empty one; ``region`` is six numbers in RAS.

    The same rule as the predictor's: the part of the reference that is computed may not be larger than what the model
    was trained on.
    """
    from TeachFormerCore.data.grid import Grid
    from TeachFormerCore.errors import InputError
    from TeachFormerCore.inference.region import Region

    part = grid
    if region is not None:
        try:
            _start, size = Region.from_ras(region).start_and_size(grid)
        except InputError as error:
            return str(error)
        part = Grid(size=size, spacing=grid.spacing, origin=grid.origin, direction=grid.direction)
    largest = card["field_of_view_mm"]
    covered = part.field_of_view_mm()
    if largest is None or all(mm <= most + 1 for mm, most in zip(covered, largest)):
        return ""
    extent, limit = (" x ".join(f"{mm:.0f}" for mm in numbers) for numbers in (covered, largest))
    subject = _("box") if region is not None else _("image")
    return _("{hint} The {subject} covers {extent} mm, the model knows up to {limit} mm.").format(
        hint=card["region_hint"], subject=subject, extent=extent, limit=limit
    )


def describe(node):
    """What is known of a volume: its name, and DICOM's modality and series description where it came from there."""
    modality, description = "", ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            modality = hierarchy.GetItemAttribute(item, "DICOM.Modality") or ""
            description = hierarchy.GetItemAttribute(item, "DICOM.SeriesDescription") or ""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is not None and uids:
        modality = modality or database.instanceValue(uids[0], "0008,0060") or ""
        description = description or database.instanceValue(uids[0], "0008,103E") or ""
    return mapping.Volume(id=node.GetID(), name=node.GetName() or "", modality=modality, description=description)


def dicomFiles(node):
    """The files of the DICOM series that a volume was loaded from, in Slicer's database; empty where unknown."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    files = [database.fileForInstance(uid) for uid in uids] if database is not None else []
    return files if files and all(files) else []
