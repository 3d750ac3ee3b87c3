"""Which model: the list, its search, import and removal."""

import qt
import slicer.util
from slicer.i18n import tr as _

from ..background import BackgroundCommand
from .section import Section, fillRow, setText, showRows


class ModelSection(Section):
    UI = "ModelPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self._import = None
        self._shown = None
        self._filling = False
        self.ui.modelSearch.textChanged.connect(self.onSearch)
        self.ui.modelTable.itemSelectionChanged.connect(self.onSelection)
        self.ui.importFolderButton.clicked.connect(self.onImportFolder)
        self.ui.importZipButton.clicked.connect(self.onImportZip)
        self.ui.removeModelButton.clicked.connect(self.onRemove)
        self.ui.modelTable.horizontalHeader().setStretchLastSection(True)
        self.ui.modelTable.verticalHeader().setVisible(False)

    def update(self):
        models = [model for model in self.panel.models if model.matches(self.ui.modelSearch.text)]
        kind = self.panel.deviceType
        shown = [(model.folder, self.parameters.model, kind) for model in models]
        if shown != self._shown:
            self._shown = shown
            self._fill(models, kind)
        setText(self.ui.modelDetails, self._details())
        model = self.model
        self.ui.removeModelButton.setEnabled(model is not None and not model.shipped)

    def _fill(self, models, kind):
        self._filling = True  # the selection changes with the rows, and is nobody's choice
        try:
            table = self.ui.modelTable
            table.setRowCount(0)  # else Qt selects a neighbour of a row that goes
            table.setRowCount(len(models))
            for row, model in enumerate(models):
                tip = model.fault or f"{model.card.get('description', '')}\n{model.folder}"
                fillRow(
                    table, row,
                    [model.name, model.segments, model.inputs, model.seconds(kind), model.size, model.licence], tip,
                )  # fmt: skip
                if model.name == self.parameters.model:
                    table.selectRow(row)
            table.resizeColumnsToContents()
            showRows(table, most=5)
        finally:
            self._filling = False

    def _details(self):
        model = self.model
        if model is None:
            return _("No model is chosen.")
        if model.fault:
            return model.fault
        told = [model.intendedUse]
        dice = model.card["accuracy"].get("dice")
        if dice is not None:
            interval = model.card["accuracy"].get("dice_interval_95")
            between = (
                _(" (95 % interval {low:.2f} to {high:.2f})").format(low=interval[0], high=interval[1])
                if interval
                else ""
            )
            told.append(
                _("Mean Dice {dice:.2f}{between} on {cases} patients it had never seen.").format(
                    dice=dice, between=between, cases=model.card["accuracy"].get("cases", "?")
                )
            )
        return " ".join(told)

    def onSearch(self, *_args):
        self.update()

    def onSelection(self, *_args):
        if self._filling:
            return
        row = self.ui.modelTable.currentRow()
        item = self.ui.modelTable.item(row, 0) if row >= 0 else None
        if item is not None:
            self.panel.chooseModel(item.text())

    def onImportFolder(self, *_args):
        self.importFrom(qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder of a model")))

    def onImportZip(self, *_args):
        self.importFrom(qt.QFileDialog.getOpenFileName(self.panel.parent, _("Zip file of a model"), "", "*.zip"))

    def importFrom(self, path):
        """Imports a folder or a zip file in the background."""
        if not path:
            return
        if self._import is not None:
            self.panel.say(_("Another model is being imported: wait for it."))
            return
        self._import = BackgroundCommand("models", "import", path)
        self.panel.say(_("Checking and copying the model ..."))
        self.panel.touch()

    def poll(self):
        if self._import is None:
            return False
        self._import.poll()
        if self._import.running:
            return True
        done, self._import = self._import, None
        if done.failure:
            self.panel.say(done.failure.sentence)
            self.panel.showLog(done.log)
        else:
            self.panel.refreshModels()
            self.panel.say(_("The model is in the list."))
        return False

    def onRemove(self, *_args):
        model = self.model
        question = _("Remove the model '{name}' from this computer?").format(name=model.name)
        if not slicer.util.confirmOkCancelDisplay(question):
            return
        from TeachFormerCore.inference.model_folder import remove_model

        try:
            remove_model(model.folder.name)
        except Exception as error:  # told where the user looks
            self.panel.say(str(error))
            return
        self.panel.refreshModels()
        self.panel.say(_("The model '{name}' was removed.").format(name=model.name))

    def close(self):
        if self._import is not None:
            self._import.close()
            self._import = None
