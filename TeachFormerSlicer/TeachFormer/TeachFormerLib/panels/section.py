"""What all sections have in common."""

import os

import qt
from slicer.i18n import tr as _


class Section:
    """One section of the panel; its controls are in ``self.ui``, by name, as those of all other sections.

    Args:
        panel: the `widget.Panel`, with the parameter node, the logic and the chosen model.
    """

    UI = ""

    def __init__(self, panel):
        self.panel = panel
        self.ui = panel.ui
        self.logic = panel.logic

    @property
    def parameters(self):
        return self.panel.parameters

    @property
    def model(self):
        return self.panel.model

    def update(self):
        """Brings the controls up to date with the parameter node."""

    def poll(self):
        """Takes up what happened in the background; answers whether there is more to come."""
        return False

    @property
    def threaded(self):
        """Whether a thread is at work, which the window has to give its turns."""
        return False

    def leaveScene(self):
        """Lets go of the scene and ends what works on it, without waiting; what needs no scene goes on."""

    def close(self):
        """Ends whatever runs and waits for it, for when the module goes."""


def fillRow(table, row, texts, tip=""):
    """Puts texts into a row of a table widget."""
    for column, text in enumerate(texts):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(tip or text)
        table.setItem(row, column, item)


def showRows(table, most):
    """Makes a table as high as its rows, up to so many of them."""
    table.setFixedHeight(30 + 30 * max(1, min(table.rowCount, most)))


def pathReason(path, choose):
    """Why a path that was typed cannot be used, or an empty sentence; ``choose`` is what an empty path asks for."""
    if not path.strip():
        return choose
    # Not Path.exists, which raises where a name is too long.
    return "" if os.path.exists(path) else _("{path} does not exist.").format(path=path)


def setText(label, text):
    """A label's text; a label without one takes no room."""
    label.setText(text)
    label.setVisible(bool(text))


def setProgress(bar, part, text):
    """A progress bar of 1000 parts; None where nobody knows how much is left."""
    if part is None:
        bar.setRange(0, 0)
    else:
        bar.setRange(0, 1000)
        bar.setValue(round(1000 * part))
    bar.setFormat(text)


def duration(seconds):
    """E.g. ``8 s``, ``3 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
