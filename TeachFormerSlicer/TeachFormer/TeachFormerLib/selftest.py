"""Checks of the module inside a launched Slicer: for Reload and Test, ctest, and ``Testing/slicer/in_slicer.py``.

Each check starts in an empty scene. Where a package is missing the check says which; it does not install it.
"""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import slicer
import slicer.util

LIMIT_S = 600
LONGEST_CALL_S = 0.1
CANCEL_S = 2.0


class NotInstalled(Exception):  # noqa: N818
    """A package that computes is missing; what was to be checked could not be."""


def checks():
    """``(name, function)`` of every check, in order: first those that need nothing but Slicer."""
    return [
        ("the panel loads and says what it needs", panelLoads),
        ("sample data is registered with its checksums", sampleDataIsRegistered),
        ("volumes are recognised as the model's channels", channelsAreFilled),
        ("a large volume needs a box, and Place box gives one", boxIsNeeded),
        ("a result becomes segmentation, maps and table", resultBecomesNodes),
        ("overlay and legend are in the slice views", overlayIsShown),
        ("the surface is in the 3D view", surfaceIsShown),
        ("the scene is saved and comes back", sceneComesBack),
        ("Apply gives a segmentation, maps and a table on the reference's grid", applyWorks),
        ("the window is never held for long", windowStaysAlive),
        ("Cancel ends a run within two seconds", cancelWorks),
        ("two runs in a row fill the same nodes", runsTwice),
        ("closing the scene ends a run", closingEndsTheRun),
        ("the CLI module segments", cliModuleSegments),
        ("the CLI module segments a batch", cliModuleSegmentsABatch),
        ("the worker segments as a program", workerSegments),
    ]


# --- helpers


def panel():
    """The module's panel, shown."""
    if slicer.util.mainWindow() is not None:
        slicer.util.selectModule("TeachFormer")
    widget = slicer.util.getModuleWidget("TeachFormer")
    # Some Slicers answer the first widget here, also after the module was reloaded.
    found = getattr(slicer.modules, "TeachFormerWidget", widget).panel
    found.enter()
    settle(0.5)
    return found


def settle(seconds=0.3):
    until(lambda: False, seconds)


def until(condition, seconds=LIMIT_S):
    """Lets the window work until the condition holds; answers whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def phantom():
    """The synthetic CT and PET, loaded."""
    from TeachFormerLib import sampledata

    return sampledata.loadPhantom()


def ready(found):
    """The phantom in the scene and the panel ready to run; raises `NotInstalled` where a package is missing."""
    from TeachFormerLib import installation

    volumes = phantom()
    settle(0.5)
    needed = installation.missing(found.model)
    if needed:
        raise NotInstalled(installation.sentence(needed) + ": install it in the module, then run this again")
    equal(found.ui.statusLabel.text, "Ready: press Apply.", "status line")
    true(found.ui.applyButton.enabled, "Apply is enabled")
    return volumes


def madeUp(found, ct, pet):
    """A finished run that nothing computed, so that what shows it is checked where no package is installed."""
    from TeachFormerLib import geometry, results

    uptake = slicer.util.arrayFromVolume(pet).astype(np.float32)
    label = (uptake > 0.5 * uptake.max()).astype(np.uint8)
    matrix = geometry.ijkToWorld(ct)
    images = {}
    for name in ("attention_fine", "attention_coarse", "uncertainty"):
        images[name], voxels = results.newImage(label.shape, np.dtype(np.float32))
        voxels[:] = np.clip(uptake / uptake.max(), 0, 1)
    figures = {"suv_max": float(uptake.max()), "suv_mean": 4.0, "suv_peak": 5.0, "mtv_ml": 30.0, "tlg": 120.0}
    entry = {"name": "GTV", "voxels": int(label.sum()), "volume_ml": 30.0, "components": 1, "mean_uncertainty": 0.1}
    channels = {name: {"mean": 1.0, "sd": 0.5} for name, _modality in found.model.channels}
    return SimpleNamespace(
        model=found.model, referenceId=ct.GetID(), ijkToWorld=matrix, images=images, label=label,
        segments=results.segmentImages(label, matrix, found.model.card["labels"]),
        statistics={"labels": [{**entry, "pet": figures, "channels": channels}]},
    )  # fmt: skip


def shown(found):
    """The phantom with a made-up result in the scene; answers CT, the run, and how long the longest part took."""
    ct, pet = phantom()
    settle(0.5)
    run, longest = madeUp(found, ct, pet), 0.0
    steps, ended = found.logic.showSteps(run, found.parameters), False
    while not ended:
        start = time.perf_counter()
        ended = next(steps, steps) is steps
        longest = max(longest, time.perf_counter() - start)
        slicer.app.processEvents()
    found.touch()
    settle(0.5)
    return ct, run, longest


def finished(command):
    """Waits for a `background.BackgroundCommand`; an `AssertionError` with its last lines where it failed."""
    until(lambda: (command.poll(), not command.running)[1])
    command.close()
    said = "\n".join(command.log[-40:])
    told = command.failure.original if command.failure else ""
    true(command.exitCode == 0, f"the process ends with 0 (it ended with {command.exitCode})\n{said}\n{told}")


def applied(found):
    """A whole run through the panel."""
    found.ui.applyButton.click()
    true(found.runSection.busy, f"a run has begun ({found.ui.statusLabel.text})")
    true(until(lambda: not found.busy), f"the run ends within {LIMIT_S} s")
    settle(0.5)
    run = found.runSection.run
    if run.failure:
        raise AssertionError(f"the run failed: {run.failure.sentence}\n{run.failure.original}\n" + "\n".join(run.log))
    return run


def true(fact, what):
    if not fact:
        raise AssertionError(f"expected: {what}")


def equal(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")


def geometryOf(node):
    from TeachFormerLib import geometry

    return geometry.ijkToWorld(node), node.GetImageData().GetDimensions()


def overlap(segmentationNode, reference):
    """Voxels of the first segment on the reference's grid."""
    identifier = segmentationNode.GetSegmentation().GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, identifier, reference) > 0


# --- checks


def panelLoads():
    found = panel()
    true(found.models, "at least one model is listed")
    true(found.model is not None and not found.model.fault, "a model is chosen and its card is whole")
    true(found.ui.statusLabel.text, "the status line says something")
    true(not found.ui.applyButton.enabled, "Apply is disabled without volumes")
    true(until(lambda: found.devices is not None, 120), "the devices are known within two minutes")
    true(found.devices["devices"], f"the process that computes has answered ({found.devices})")


def sampleDataIsRegistered():
    from TeachFormerLib import sampledata

    sources = {source.sampleName: source for source in slicer.modules.sampleDataSources[sampledata.CATEGORY]}
    equal(sorted(sources), sorted([sampledata.SARCOMA_NAME, sampledata.PHANTOM_NAME]), "registered samples")
    sums = sources[sampledata.SARCOMA_NAME].checksums
    true(all(str(each).startswith("SHA256:") for each in sums), f"each file has a checksum ({sums})")


def channelsAreFilled():
    found = panel()
    ct, pet = phantom()
    settle(0.5)
    equal(found.parameters.channel1, ct, "CT channel")
    equal(found.parameters.channel2, pet, "PET channel")
    true("ct" in found.ui.channel1Reason.text, f"a reason is shown ({found.ui.channel1Reason.text})")


def boxIsNeeded():
    found = panel()
    for name, low in (("CT", -1000), ("PET", 0)):
        array = np.zeros((200, 60, 60), np.float32)
        array[0, 0, 0], array[1, 1, 1] = low, 5
        node = slicer.util.addVolumeFromArray(array, name=f"large {name}")
        node.SetSpacing(10, 10, 10)
    settle(0.5)
    true(not found.ui.applyButton.enabled, "Apply is disabled")
    true(
        "place a box" in found.ui.statusLabel.text.lower() or "needs" in found.ui.statusLabel.text,
        "the reason is shown",
    )
    found.ui.placeBoxButton.click()
    settle(0.5)
    true(found.parameters.region is not None, "there is a box")
    true("place a box" not in found.ui.statusLabel.text.lower(), f"the box is enough ({found.ui.statusLabel.text})")


def applyWorks():
    found = panel()
    ct, _pet = ready(found)
    run = applied(found)
    parameters = found.parameters
    true(overlap(parameters.segmentation, ct).sum() > 100, "the segmentation has voxels on the CT's grid")
    segment = parameters.segmentation.GetSegmentation().GetNthSegment(0)
    equal(segment.GetName(), "GTV", "name of the segment")
    for field in ("attentionFine", "attentionCoarse", "uncertainty"):
        node = getattr(parameters, field)
        true(node is not None, f"{field} is there")
        for mine, theirs in zip(geometryOf(node), geometryOf(ct)):
            true(np.allclose(mine, theirs, atol=1e-4), f"{field} lies on the CT's grid")
    true(parameters.statistics.GetNumberOfRows() == 1, "the table has a row")
    true("mL" in found.ui.statusLabel.text, f"the status line says what was found ({found.ui.statusLabel.text})")
    true(run.seconds > 0, "the time is known")


def windowStaysAlive():
    """No call of the module's timer takes longer than a person notices."""
    found = panel()
    ready(found)
    longest, tick = [0.0], found.tick

    def timed():
        start = time.perf_counter()
        tick()
        longest[0] = max(longest[0], time.perf_counter() - start)

    found.ui.applyButton.click()
    while found.busy:
        timed()
        slicer.app.processEvents()
        time.sleep(0.02)
    true(longest[0] < LONGEST_CALL_S, f"the longest tick took {1000 * longest[0]:.0f} ms, at most 100 ms are allowed")


def resultBecomesNodes():
    from TeachFormerLib import results

    found = panel()
    ct, run, longest = shown(found)
    parameters = found.parameters
    true(np.array_equal(overlap(parameters.segmentation, ct), run.label > 0), "the segmentation holds the mask")
    segment = parameters.segmentation.GetSegmentation().GetNthSegment(0)
    equal(segment.GetName(), "GTV", "name of the segment")
    wanted = [value / 255 for value in found.model.card["labels"][0]["color"]]
    true(np.allclose(segment.GetColor(), wanted, atol=0.01), f"its colour is the card's ({segment.GetColor()})")
    true("86049000" in codeOf(segment), f"its code is that of a tumour ({codeOf(segment)})")
    for field in ("attentionFine", "attentionCoarse", "uncertainty"):
        for mine, theirs in zip(geometryOf(getattr(parameters, field)), geometryOf(ct)):
            true(np.allclose(mine, theirs, atol=1e-4), f"{field} lies on the CT's grid")
    equal(parameters.statistics.GetNumberOfRows(), 1, "rows of the table")
    true(found.ui.exportCsvButton.enabled, "the table can be exported")
    with tempfile.TemporaryDirectory() as folder:
        results.writeCsv(parameters.statistics, Path(folder) / "table.csv")
        true("GTV" in (Path(folder) / "table.csv").read_text(encoding="utf-8"), "the CSV file holds the segment")
    true(longest < LONGEST_CALL_S, f"the longest part took {1000 * longest:.0f} ms, at most 100 ms are allowed")


def overlayIsShown():
    from TeachFormerLib.parameters import Overlay

    found = panel()
    shown(found)
    found.parameters.overlay = Overlay.ATTENTION_FINE
    settle()
    volume = found.parameters.attentionFine
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    true(composites and all(c.GetForegroundVolumeID() == volume.GetID() for c in composites), "it is the foreground")
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(volume)
    true(legend is not None and legend.GetVisibility(), "its legend is visible")
    found.ui.overlayThresholdSlider.value = 0.6
    settle()
    true(abs(volume.GetDisplayNode().GetLowerThreshold() - 0.6) < 1e-6, "the slider moves the threshold")
    found.parameters.overlay = Overlay.NONE
    settle()
    true(all(c.GetForegroundVolumeID() is None for c in composites), "None takes it away")


def surfaceIsShown():
    from TeachFormerLib import surface

    found = panel()
    ct, run, _longest = shown(found)
    segmentation = found.parameters.segmentation
    equal(len(surface.lacking(segmentation)), 1, "segments without a surface")
    found.ui.show3DBox.checked = True
    true(until(lambda: not surface.lacking(segmentation), 60), f"there is a surface ({found.ui.statusLabel.text})")
    settle()
    mesh = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(surface.surfaceName())
    inside = np.argwhere(run.label)[:, ::-1].mean(axis=0)
    centre = (geometryOf(ct)[0] @ [*inside, 1])[:3]
    low, high = np.reshape(mesh.GetBounds(), (3, 2)).T
    true((low < centre).all() and (centre < high).all(), f"it lies around the mask ({mesh.GetBounds()}, {centre})")
    true(segmentation.GetDisplayNode().GetVisibility3D(), "it is visible")
    found.ui.show3DBox.checked = False
    settle()
    true(not segmentation.GetDisplayNode().GetVisibility3D(), "it is hidden again")


def codeOf(segment):
    """The SNOMED code of a segment as text, in whichever way this Slicer keeps it."""
    import vtk

    text = vtk.reference("")
    if segment.GetTag(segment.GetTerminologyEntryTagName(), text):
        return str(text)
    return segment.GetTerminology().GetAsPrintableString() if hasattr(segment, "GetTerminology") else ""


def sceneComesBack():
    from TeachFormerLib.parameters import Overlay

    found = panel()
    shown(found)
    found.parameters.overlay = Overlay.UNCERTAINTY
    found.parameters.overlayThreshold = 0.35
    settle()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "scene.mrb")
        true(slicer.util.saveScene(file), "the scene is saved")
        slicer.mrmlScene.Clear()
        settle(0.5)
        slicer.util.loadScene(file)
        settle(0.5)
        found.enter()
        settle(0.5)
    parameters = found.parameters
    equal(parameters.overlay, Overlay.UNCERTAINTY, "overlay")
    true(abs(parameters.overlayThreshold - 0.35) < 1e-6, "threshold")
    true(abs(found.ui.overlayThresholdSlider.value - 0.35) < 1e-6, "the slider shows it")
    true(parameters.channel1 is not None and parameters.segmentation is not None, "volumes and segmentation are chosen")
    segment = parameters.segmentation.GetSegmentation().GetNthSegment(0)
    equal(segment.GetName(), "GTV", "name of the segment")
    true("86049000" in codeOf(segment), f"the code is kept ({codeOf(segment)})")


def cancelWorks():
    found = panel()
    ready(found)
    found.ui.applyButton.click()
    settle(1.0)
    start = time.monotonic()
    found.ui.cancelButton.click()
    true(until(lambda: not found.busy, 10), "the run ends")
    true(time.monotonic() - start < CANCEL_S, f"it took {time.monotonic() - start:.1f} s")
    true(found.parameters.segmentation is None, "nothing was made")


def runsTwice():
    found = panel()
    ready(found)
    applied(found)
    first = (found.parameters.segmentation, found.parameters.attentionFine, found.parameters.statistics)
    count = slicer.mrmlScene.GetNumberOfNodes()
    applied(found)
    equal((found.parameters.segmentation, found.parameters.attentionFine, found.parameters.statistics), first, "nodes")
    equal(slicer.mrmlScene.GetNumberOfNodes(), count, "number of nodes")
    equal(found.parameters.segmentation.GetSegmentation().GetNumberOfSegments(), 1, "number of segments")


def closingEndsTheRun():
    found = panel()
    ready(found)
    found.ui.applyButton.click()
    settle(1.0)
    slicer.mrmlScene.Clear()
    settle(0.5)
    true(not found.busy, "nothing runs")


def ranCli(**values):
    """Runs the CLI module to its end; answers the label node that it filled."""
    module = getattr(slicer.modules, "teachformercli", None)
    true(module is not None, "the module TeachFormerCLI is loaded (add its folder to the additional module paths)")
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "CLI label")
    node = slicer.cli.runSync(module, None, {**values, "output": label.GetID()})
    if node.GetStatus() & node.ErrorsMask:
        raise AssertionError(f"the CLI module failed:\n{node.GetErrorText()}\n{node.GetOutputText()}")
    true(label.GetImageData() is not None, f"Slicer loaded the label:\n{node.GetOutputText()}")
    return label


def cliModuleSegments():
    ct, pet = ready(panel())
    label = ranCli(ct=ct.GetID(), pet=pet.GetID())
    true(slicer.util.arrayFromVolume(label).sum() > 100, "the label has voxels")


def cliModuleSegmentsABatch():
    """One case, from a table; the output volume that Slicer asks for comes back empty."""
    from TeachFormerLib.background import BackgroundCommand

    ready(panel())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finished(BackgroundCommand("phantom", folder))
        table = folder / "cases.csv"
        table.write_text("case,CT,PET\nphantom,CT.nrrd,PET.nrrd\n", encoding="utf-8")
        label = ranCli(batchInput=str(table), batchOutput=str(folder / "results"))
        found = sorted(file.name for file in (folder / "results").iterdir())
        true({"phantom.nii.gz", "phantom.json", "summary.csv"} <= set(found), f"the results are there ({found})")
    true(not slicer.util.arrayFromVolume(label).any(), "the output volume is empty")


def workerSegments():
    """As a script calls it, ``PythonSlicer -m TeachFormerCore segment ...``, on files."""
    from TeachFormerLib.background import BackgroundCommand

    ready(panel())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finished(BackgroundCommand("phantom", folder))
        words = [word for channel in ("CT", "PET") for word in ("--input", f"{channel}={folder / channel}.nrrd")]
        finished(BackgroundCommand("segment", *words, "--output", folder / "mask.seg.nrrd"))
        node = slicer.util.loadSegmentation(str(folder / "mask.seg.nrrd"))
        true(node is not None, "Slicer reads the segmentation")
        equal(node.GetSegmentation().GetNthSegment(0).GetName(), "GTV", "name of the segment")
