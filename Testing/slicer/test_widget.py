"""The panel and its .ui files in PySide6, behind our own stand-ins for Slicer's widgets (see ``stand_ins``)."""

import json
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

from stand_ins import core, gui
from stand_ins.gui import until

UI = sorted((core.MODULE / "Resources" / "UI").glob("*.ui"))


def test_every_bound_control_goes_through_the_parameter_node(panel, phantom) -> None:
    """Both ways, for every control that a .ui file binds; and every field of the node is bound or set by the panel."""
    import enum

    parameters, bound = panel.parameters, {}
    for widget in vars(panel.ui).values():
        name = widget.property("SlicerParameterName")
        if name:
            bound[name] = widget
    in_files = [
        element.findtext("string")
        for file in UI
        for element in ET.parse(file).getroot().iter("property")
        if element.get("name") == "SlicerParameterName"
    ]
    assert sorted(bound) == sorted(in_files)
    unbound = {"model", "device", "attentionFine", "attentionCoarse", "gradCam", "uncertainty"}
    assert set(parameters.allParameters) - set(bound) == unbound
    for name, widget in bound.items():
        field = parameters.allParameters[name]
        if field.is_node:
            value, other = core_node(field.kind.__name__), None
            parameters_set(parameters, name, value)
            assert widget.currentNode() is value, name
            widget.setCurrentNode(other)
        elif field.kind is bool:
            value, other = not getattr(parameters, name), getattr(parameters, name)
            parameters_set(parameters, name, value)
            assert widget.checked is value, name
            widget.setChecked(other)
        elif field.kind is float:
            value, other = 0.25, 0.75
            parameters_set(parameters, name, value)
            assert widget.value == pytest.approx(value), name
            widget.setValue(other)
        elif field.kind is str:
            value, other = "/data/Fälle 1", "x"
            parameters_set(parameters, name, value)
            assert widget.text == value, name
            widget.setText(other)
        else:
            assert issubclass(field.kind, enum.Enum), name
            members = list(field.kind)
            value, other = members[-1], members[1]
            parameters_set(parameters, name, value)
            assert widget.currentText == value.label(), name
            widget.setCurrentIndex(1)
        assert getattr(parameters, name) == (pytest.approx(other) if field.kind is float else other), name


def parameters_set(parameters, name, value):
    assert getattr(parameters, name) != value, f"{name} must change for the test to mean anything"
    setattr(parameters, name, value)


def core_node(kind):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(kind, f"a {kind}")
    node.SetHideFromEditors(False)
    return node


def test_every_control_has_a_tool_tip_and_every_file_its_section() -> None:
    from TeachFormerLib.widget import SECTIONS

    assert [file.stem for file in UI] == sorted(section.UI for section in SECTIONS)
    names = []
    for file in UI:
        for element in ET.parse(file).getroot().iter("widget"):
            names.append(element.get("name"))
            tip = next((p.findtext("string") for p in element.iterfind("property") if p.get("name") == "toolTip"), "")
            assert tip.strip(), f"{file.name}: {names[-1]} has no tool tip"
            assert tip.endswith("."), f"{file.name}: {names[-1]}: a tool tip is a sentence"
    assert len(set(names)) == len(names), "the sections share one space of names"


def test_apply_is_enabled_when_all_is_there_and_says_what_is_missing(panel, loaded) -> None:
    ui, phantom = panel.ui, loaded
    assert ui.channel1Selector.currentNode() is phantom.CT
    assert ui.channel1Reason.text == "name contains 'ct'"
    assert ui.channel2Label.text == "PET:"
    assert not ui.channel3Label.isVisibleTo(ui.InputsPanel)
    assert (ui.applyButton.enabled, ui.statusLabel.text) == (True, "Ready: press Apply.")
    ui.channel2Selector.setCurrentNode(None)
    panel.tick()
    assert (ui.applyButton.enabled, ui.statusLabel.text) == (False, "Choose the PET volume.")
    assert ui.applyButton.toolTip == "Choose the PET volume."
    ui.channel2Selector.setCurrentNode(phantom.CT)
    panel.tick()
    assert "is chosen for CT and for PET" in ui.statusLabel.text
    ui.channel2Selector.setCurrentNode(phantom.PET)
    for node in (phantom.CT, phantom.PET):
        node.SetSpacing(8, 8, 8)
    panel.touch()
    panel.tick()
    assert not ui.applyButton.enabled
    assert ui.statusLabel.text.startswith("This model was trained on small images: place a box.")
    ui.placeBoxButton.click()
    panel.tick()
    assert (ui.applyButton.enabled, ui.statusLabel.text) == (True, "Ready: press Apply.")
    panel.parameters.region.SetSize(390, 390, 300)  # the box is dragged
    panel.tick()
    assert "The box covers" in ui.statusLabel.text


def test_a_whole_run_by_the_real_worker(panel, loaded, tmp_path: Path) -> None:
    from TeachFormerLib.parameters import Overlay

    ui = panel.ui
    panel.parameters.overlay = Overlay.ATTENTION_FINE
    ui.applyButton.click()
    panel.tick()
    assert panel.busy
    assert not ui.applyButton.enabled
    assert ui.cancelButton.enabled
    assert until(panel, lambda: not panel.busy) < 0.1
    assert "mL; " in ui.statusLabel.text or ui.statusLabel.text.startswith("Nothing was found; ")
    assert " s on cpu" in ui.statusLabel.text
    assert ui.applyButton.enabled
    assert ui.segmentationSelector.currentNode() is panel.parameters.segmentation
    assert panel.parameters.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert ui.statisticsTable.model().rowCount() == 1
    gui.ANSWERS["file"] = str(tmp_path / "Größe.csv")
    ui.exportCsvButton.click()
    assert "GTV" in (tmp_path / "Größe.csv").read_text(encoding="utf-8")
    ui.copyDiagnosticsButton.click()
    import slicer

    told = slicer.app.clipboard().text
    assert "model: tiny 1" in told
    assert "last run: done" in told
    assert "Phantom" not in told
    assert str(tmp_path) not in told


def test_the_timer_alone_moves_a_run_on(panel, loaded) -> None:
    """Where nothing else lets go of Python's lock: Slicer's loop may keep it while it waits for the user."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        panel.ui.applyButton.click()
        end = time.monotonic() + 90
        while panel.busy:
            assert time.monotonic() < end, panel.runSection.run.state
            panel.tick()
        panel.tick()
    finally:
        sys.setswitchinterval(interval)
    assert "mL; " in panel.ui.statusLabel.text or panel.ui.statusLabel.text.startswith("Nothing was found; ")


def test_cancel_and_scene_close_end_a_run(panel, loaded, scene) -> None:
    ui = panel.ui
    ui.applyButton.click()
    until(panel, lambda: panel.runSection.run.state == "computing")
    start = time.monotonic()
    ui.cancelButton.click()
    until(panel, lambda: not panel.busy)
    assert time.monotonic() - start < 2
    assert ui.statusLabel.text == "Cancelled; nothing was changed."
    assert panel.parameters.segmentation is None
    ui.applyButton.click()
    until(panel, lambda: panel.runSection.run.state == "computing")
    process = panel.runSection.run._runner._process
    scene.mrmlScene.Clear(0)
    assert process.wait(timeout=3) is not None
    assert not panel.busy
    panel.tick()
    assert panel.ui.statusLabel.text == "Choose the CT volume."


def test_a_parameter_node_that_is_let_go_is_no_longer_bound(panel, loaded) -> None:
    """Else each scene that is closed or loaded leaves another one behind that writes into the controls."""
    ui, old = panel.ui, panel.parameters
    panel.setParameters(None)
    ui.overlayOpacitySlider.setValue(0.11)
    assert old.overlayOpacity == pytest.approx(0.5)
    panel.setParameters(core.parameters())
    assert ui.overlayOpacitySlider.value == pytest.approx(0.5)
    old.overlayOpacity = 0.25  # the same node of the scene, so that the new one follows
    assert ui.overlayOpacitySlider.value == pytest.approx(0.25)
    assert not old._bound
    assert len(panel.parameters._bound) == 1


def test_a_module_that_is_loaded_anew_is_at_work_at_once(panel, loaded) -> None:
    """As Slicer reloads: cleanup of the old widget, setup of a new one in the same parent, no enter."""
    old = panel.widget
    panel.parameters.overlayOpacity = 0.25
    panel.ui.applyButton.click()
    until(panel, lambda: panel.runSection.run.state == "computing")
    process = panel.runSection.run._runner._process
    old.cleanup()
    assert process.wait(timeout=3) is not None, "a run does not outlive its panel"
    new = gui.module_class("TeachFormerWidget")(old.parent)
    new.setup()
    try:
        assert new.panel.parameters.overlayOpacity == pytest.approx(0.25)
        assert new.panel.ui.overlayOpacitySlider.value == pytest.approx(0.25)
        new.panel.tick()
        assert new.panel.ui.statusLabel.text == "Ready: press Apply."
        old.enter()  # some Slicers still call the old one
        assert old.panel.parameters is None
        new.panel.runSection.close()  # the look at the devices
    finally:
        new.cleanup()


def test_a_failed_run_says_why_and_the_log_has_the_original(panel, loaded, scene) -> None:
    scene.util.updateVolumeFromArray(loaded.PET, scene.util.arrayFromVolume(loaded.PET) * 1000)
    panel.tick()
    panel.ui.applyButton.click()
    until(panel, lambda: not panel.busy)
    assert "it is probably in Bq/mL" in panel.ui.statusLabel.text
    assert "error: " in panel.ui.logText.toPlainText()


def test_without_torch_the_panel_asks_says_the_size_and_installs(panel, loaded, monkeypatch) -> None:
    from TeachFormerLib import installation

    asked, arrived = [], []

    class Absent(installation.Package):
        @property
        def installed(self):
            return bool(arrived)

    monkeypatch.setattr(installation, "SAFETENSORS", Absent("safetensors>=0.4.3", "x", "safetensors, about 1 MB"))
    monkeypatch.setattr(
        sys.modules["slicer"].util, "pip_install", lambda words: asked.append(words) or arrived.append(1), raising=False
    )
    ui = panel.ui
    panel.touch()
    panel.tick()
    assert not ui.applyButton.enabled
    assert ui.installLabel.text == "To compute, TeachFormer needs: safetensors, about 1 MB"
    gui.ANSWERS["confirm"] = False
    ui.installButton.click()
    assert asked == []
    assert "about 1 MB" in gui.ASKED[-1]
    gui.ANSWERS.update(confirm=True, file="/wheels")
    ui.installWheelsButton.click()
    panel.tick()
    words = asked[0]
    assert words[:3] == ["safetensors>=0.4.3", "--no-index", "--find-links"]
    assert words[3:5] == ["/wheels", "--constraint"]
    assert ui.applyButton.enabled
    panel.runSection.close()  # the look at the devices that an installation starts


def test_models_are_chosen_searched_imported_and_removed(panel, tiny_model: Path, tmp_path: Path) -> None:
    ui = panel.ui
    names = lambda: [ui.modelTable.item(row, 0).text() for row in range(ui.modelTable.rowCount)]  # noqa: E731
    assert names() == ["sts_ct_pet", "tiny"]
    assert ui.removeModelButton.enabled
    ui.modelSearch.setText("sarcoma")
    assert names() == ["sts_ct_pet"]
    ui.modelTable.selectRow(0)
    panel.tick()
    assert panel.parameters.model == "sts_ct_pet"
    assert "Research only" in ui.modelDetails.text
    assert "on 8 patients it had never seen" in ui.modelDetails.text
    assert not ui.removeModelButton.enabled
    ui.modelSearch.setText("")
    ui.modelTable.selectRow(1)
    panel.tick()
    ui.removeModelButton.click()
    panel.tick()
    assert names() == ["sts_ct_pet"]
    import shutil

    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tiny_model.parent, tiny_model.name)
    gui.ANSWERS["file"] = archive
    ui.importZipButton.click()
    until(panel, lambda: panel.modelSection._import is None)
    assert ui.statusLabel.text.startswith("The model is in the list.")
    assert names() == ["sts_ct_pet", "tiny"]
    panel.modelSection.importFrom(str(tiny_model))
    until(panel, lambda: panel.modelSection._import is None)
    assert "installed already" in ui.statusLabel.text


def test_the_devices_are_asked_in_a_process_of_their_own(panel) -> None:
    panel.devices = None
    panel.runSection.probe()
    until(panel, lambda: panel.devices is not None)
    told = panel.devices
    assert told["devices"][-1]["id"] == "cpu"
    assert told["versions"]["torch"]
    assert panel.ui.deviceSelector.itemData(0) == "auto"
    panel.ui.deviceSelector.setCurrentIndex(panel.ui.deviceSelector.count - 1)
    assert panel.parameters.device == "cpu"
    json.dumps(told, allow_nan=False)


def test_sample_data_is_registered_with_the_hashes_that_are_known(panel, monkeypatch) -> None:
    import types

    known = {
        "CT_image.nii.gz": "838037e3c2eb24414ab746d98634ed9b7a568c608bdcfc39495c4a49c944d04b",
        "PET_image.nii.gz": "9f6d168572f8c065f6d2a39beef442e31613be27ccb47e9997c82609eb92d959",
        "MR_T1_image.nii.gz": "8b26a0358e24020d2dbd3c1607ef821c9b8434cd96cafced0be2589120961284",
        "CT_mask.nii.gz": "e50a7b598e0db7d01a542d91fc812bfd7121ec7e7f2c52ba7a7aed36403c8536",
    }
    added = []
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: added.append(source))
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    parent = types.SimpleNamespace()
    module = gui.module_class("TeachFormer")(parent)
    import slicer

    slicer.app.connections["startupCompleted()"]()
    assert module.parent.categories == ["Segmentation"]
    sarcoma, phantom = added
    assert [uri.rsplit("/", 1)[1] for uri in sarcoma["uris"]] == list(known)
    assert all("/6da96021bc91faf4c0cb7fd7fa56a4225d2064a8/" in uri for uri in sarcoma["uris"])
    assert sarcoma["checksums"] == [f"SHA256:{sha}" for sha in known.values()]
    lengths = {len(sarcoma[key]) for key in ("uris", "fileNames", "nodeNames", "checksums", "loadFileType")}
    assert lengths == {4}
    assert phantom["customDownloader"] is not None
    assert Path(phantom["thumbnailFileName"]).is_file()
