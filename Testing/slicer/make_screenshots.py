"""Makes docs/screenshots from a real case: the panel as it is, and slice views as Slicer's own classes draw them.

    python Testing/slicer/make_screenshots.py STS_PETCT_MR_FOLDER [docs/screenshots]

The panel is the module's own .ui and code on PySide6, behind our stand-ins; the views are slicer-core's.
Image data: STS, CC BY 3.0, modified.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from stand_ins import core, gui
from stand_ins.gui import until

REPOSITORY = Path(__file__).resolve().parents[2]
CASE = "STS_014"
CONFIGURATION = "sts_h_denseformer_light.yaml"


def work_in(folder, data):
    """Goes to a folder with all that Batch and Train ask for: a table of three cases, the last one with no PET."""
    os.chdir(folder)
    lines = ["case,CT,PET"]
    for case, channels in ((CASE, 2), ("STS_002", 2), ("STS_020", 1)):
        files = [str(data / "imagesTr" / f"{case}_000{n}.nii.gz") if n < channels else "" for n in range(2)]
        lines.append(",".join([case, *files]))
    Path("cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Path("results").mkdir()
    Path(data.name).symlink_to(data)
    Path(CONFIGURATION).symlink_to(REPOSITORY / "Training" / "configs" / CONFIGURATION)


def main(data, target):
    gui.install()
    core.new_scene()
    import numpy as np
    import qt
    import SimpleITK as sitk
    from rendering import SliceView, montage, save
    from TeachFormerLib.parameters import Overlay

    views = {name: SliceView(name, (360, 360)) for name in ("Red", "Yellow", "Green")}
    widget = gui.module_class("TeachFormerWidget")()
    widget.setup()
    widget.enter()
    panel = widget.panel
    until(panel, lambda: panel.devices is not None)
    for number, name in enumerate(("CT", "PET")):
        image = sitk.ReadImage(str(data / "imagesTr" / f"{CASE}_{number:04d}.nii.gz"))
        node = core.volume_from(image, f"{CASE} {name}")
        if name == "CT":
            node.GetDisplayNode().AutoWindowLevelOff()
            node.GetDisplayNode().SetWindowLevel(400, 40)

    def grab(name, height, open_sections):
        for section in ("ModelPanel", "InputsPanel", "RunPanel", "ResultPanel", "BatchPanel", "TrainPanel", "LogPanel"):
            getattr(panel.ui, section).collapsed = section not in open_sections
        widget.parent.resize(520, height)
        widget.parent.show()
        until(panel, lambda: True)
        for _ in range(5):
            qt.application.processEvents()
        widget.parent.grab().save(str(target / f"{name}.png"))

    panel.tick()
    work_in(tempfile.mkdtemp(), data)
    panel.parameters.batchInput, panel.parameters.batchOutput = "cases.csv", "results"
    panel.parameters.trainData, panel.parameters.trainRun = data.name, "my_student"
    panel.parameters.trainConfiguration = CONFIGURATION
    panel.tick()
    panel.ui.startBatchButton.click()
    until(panel, lambda: not panel.sections[4].running)
    panel.tick()
    grab("panel_batch_train", 760, ("BatchPanel", "TrainPanel", "LogPanel"))
    panel.parameters.overlay = Overlay.ATTENTION_FINE
    panel.tick()
    until(panel, lambda: panel.ui.applyButton.enabled)
    panel.ui.applyButton.click()
    until(panel, lambda: not panel.busy)
    print(panel.ui.statusLabel.text)
    panel.tick()
    shown = ("ModelPanel", "InputsPanel", "RunPanel", "ResultPanel")
    grab("panel", 1060, shown)
    bounds = np.zeros(6)
    panel.parameters.segmentation.GetRASBounds(bounds)
    centre = bounds.reshape(3, 2).mean(axis=1)
    for view in views.values():
        view.look_at(centre, field_of_view_mm=170)
    # A thin outline, so that what lies under the segment is seen.
    display = panel.parameters.segmentation.GetDisplayNode()
    rows = {}
    for overlay in (Overlay.NONE, Overlay.ATTENTION_FINE, Overlay.UNCERTAINTY):
        display.SetVisibility2DFill(overlay is Overlay.NONE)
        panel.parameters.overlay = overlay
        panel.logic.updateOverlay(panel.parameters)
        rows[overlay] = montage([view.render() for view in views.values()])
    save(np.concatenate(list(rows.values())), target / "views.png")
    widget.cleanup()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]).resolve(),
        Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else REPOSITORY / "docs" / "screenshots",
    )
