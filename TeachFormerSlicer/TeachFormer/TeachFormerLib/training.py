"""A training in the background, its curve while it runs, and its model in the list when it is done."""

import csv
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from .background import BackgroundCommand

METRICS_FILE = "metrics.csv"
LOSS, DICE = "train_loss", "choice_dice"
COLOURS = {LOSS: (0.80, 0.33, 0.10), DICE: (0.12, 0.45, 0.70)}


class TrainingRun(BackgroundCommand):
    """``teachformer train`` or ``distill``, then ``export`` once it has finished.

    A run that is stopped goes on with the same call; its folder holds everything.
    """

    def __init__(self, *, configuration, data, run):
        self.run = run
        command = "distill" if namesTeachers(configuration) else "train"
        super().__init__(command, "--config", configuration, "--data", data, "--run", run)

    @property
    def folder(self):
        from TeachFormerCore.paths import runs_folder

        return runs_folder() / self.run

    @property
    def finished(self):
        return self.exitCode == 0


def namesTeachers(configuration):
    """Whether a configuration file has a list of teachers that is not empty; read as text, since Slicer has no YAML."""
    lines = Path(configuration).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("teachers:"):
            rest = line.partition(":")[2].partition("#")[0].strip()
            following = next(
                (after for after in lines[number + 1 :] if after.strip() and not after.strip().startswith("#")), ""
            )
            return rest not in ("", "[]", "null", "~") or (not rest and following.lstrip().startswith("-"))
    return False


def readMetrics(file):
    """``{column: float array}`` of a metrics file, NaN where a cell is empty; ``{}`` without rows or file."""
    try:
        with Path(file).open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if None not in row.values() and None not in row]
    except OSError:
        return {}
    columns = {}
    for name in rows[0] if rows else ():
        try:
            columns[name] = np.array([float(row[name]) if row[name] else np.nan for row in rows])
        except ValueError:
            continue
    return columns


def lossColumn(columns):
    """The total loss where the file has one, else its first training term."""
    names = [name for name in columns if name.startswith("train_")]
    return next((name for name in ("train_loss", "train_total") if name in names), names[0] if names else None)


class Curve:
    """Table, series and chart nodes of a run's figures; made once per scene, refilled as the run goes on."""

    NAME = "TeachFormer training"

    def __init__(self):
        self.table = self._node("vtkMRMLTableNode", self.NAME)
        self.chart = self._node("vtkMRMLPlotChartNode", self.NAME)
        self.chart.SetXAxisTitle(_("Step"))
        self.chart.SetTitle(_("Training"))
        self.chart.SetYAxisTitle(_("Loss, Dice"))

    @classmethod
    def inScene(cls):
        """Whether a curve was asked for in this scene."""
        charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
        return any(node.GetAttribute("TeachFormer.curve") == cls.NAME for node in charts)

    def fill(self, columns):
        """Shows the figures; columns the run does not have are left out."""
        loss = lossColumn(columns)
        if "step" not in columns or loss is None:
            return
        self.table.RemoveAllColumns()
        shown = [(loss, LOSS), (DICE, DICE)]
        for name in ("step", *(column for column, _kind in shown if column in columns)):
            values = numpy_to_vtk(columns[name].astype(float), deep=True, array_type=vtk.VTK_DOUBLE)
            values.SetName(name)
            self.table.AddColumn(values)
        for column, kind in shown:
            # A series whose column holds no figure yet would be drawn as a line at 0.
            if column in columns and np.isfinite(columns[column]).any():
                self._series(column, kind)

    def _series(self, column, kind):
        series = self._node("vtkMRMLPlotSeriesNode", f"{self.NAME} {kind}")
        series.SetName(_("Loss") if kind == LOSS else _("Dice of the choosing cases"))
        series.SetAndObserveTableNodeID(self.table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName(column)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        # Dice is measured every few epochs only: points, joined where they follow each other.
        series.SetMarkerStyle(
            slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle
            if kind == DICE
            else slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone
        )
        series.SetColor(*COLOURS[kind])
        if not self.chart.HasPlotSeriesNodeID(series.GetID()):
            self.chart.AddAndObservePlotSeriesNodeID(series.GetID())

    def _node(self, kind, name):
        for node in slicer.util.getNodesByClass(kind):
            if node.GetAttribute("TeachFormer.curve") == name:
                return node
        node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
        node.SetAttribute("TeachFormer.curve", name)
        return node
