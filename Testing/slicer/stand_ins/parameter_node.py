"""A stand-in for ``slicer.parameterNodeWrapper``: typed fields kept in a real parameter node, and bound to widgets.

As in Slicer: a field's value lives in the node (texts as parameters, nodes as references), a widget is bound by its
exact type, a combo box of an enumeration is filled with its labels, and one of texts needs a list of choices.
"""

import enum
import typing
from dataclasses import dataclass

import vtk


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float


class _Field:
    """One field: text in the node's parameter, or a node reference."""

    def __init__(self, name, hint, default):
        self.name = name
        self.kind, *self.notes = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else [hint]
        self.default = default

    @property
    def is_node(self):
        return isinstance(self.kind, type) and issubclass(self.kind, vtk.vtkObject)

    def __get__(self, owner, _kind=None):
        node = owner.parameterNode
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.kind is bool:
            return text == "true"
        if isinstance(self.kind, type) and issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return self.kind(text)

    def __set__(self, owner, value):
        node = owner.parameterNode
        if self.is_node:
            if value is not None and not value.IsA(self.kind.__name__):
                raise TypeError(f"{self.name} takes a {self.kind.__name__}, not {value}")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, self.kind):
            value = self.kind(value) if self.kind is float and isinstance(value, int) else value
        if not isinstance(value, self.kind):
            raise TypeError(f"{self.name} takes a {self.kind.__name__}, not {value!r}")
        for note in self.notes:
            if isinstance(note, WithinRange) and not note.minimum <= value <= note.maximum:
                raise ValueError(f"{self.name} must be within {note.minimum}..{note.maximum}, not {value}")
        node.SetParameter(self.name, self.write(value))

    def write(self, value):
        if self.kind is bool:
            return "true" if value else "false"
        return value.name if isinstance(value, enum.Enum) else str(value)


def parameterNodeWrapper(cls):
    fields = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        field = _Field(name, hint, getattr(cls, name, None))
        if field.default is None and not field.is_node:
            field.default = field.kind()
        fields[name] = field
        setattr(cls, name, field)

    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._bound, self._next = {}, 0
        self._updating = False
        for name, field in fields.items():
            if not field.is_node and not parameterNode.HasParameter(name):
                setattr(self, name, field.default)

    def connectParametersToGui(self, widgets):
        bound = {name: _connector(widget, fields[name]) for name, widget in widgets.items()}
        tag, self._next = self._next, self._next + 1
        self._bound[tag] = bound
        for name, connector in bound.items():
            connector.write(getattr(self, name))
            connector.connect(lambda name=name, connector=connector: read(name, connector))
        self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: update(tag))

        def read(name, connector):
            if not self._updating and tag in self._bound:
                setattr(self, name, connector.read())

        def update(tag):
            if self._updating or tag not in self._bound:
                return
            self._updating = True
            try:
                for name, connector in bound.items():
                    connector.write(getattr(self, name))
            finally:
                self._updating = False

        return tag

    def connectGui(self, gui):
        """Slicer's answers nothing, up to 5.12: what is bound by it stays bound."""
        named = ((widget.property("SlicerParameterName"), widget) for widget in vars(gui).values())
        connectParametersToGui(self, {name: widget for name, widget in named if name})

    def disconnectGui(self, tag):
        self._bound.pop(tag, None)

    cls.allParameters = fields
    cls.__init__, cls.connectGui, cls.disconnectGui = __init__, connectGui, disconnectGui
    cls.connectParametersToGui = connectParametersToGui
    cls.AddObserver = lambda self, *rest: self.parameterNode.AddObserver(*rest)
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    return cls


class _Connector:
    def __init__(self, signal, read, write):
        self._signal, self.read, self.write = signal, read, write

    def connect(self, callback):
        self._signal.connect(lambda *_: callback())


def _connector(widget, field):
    """As strict as Slicer's: the widget's exact type must be one that it binds to the field's."""
    import ctk
    import qt
    import slicer

    kind = type(widget)
    if kind is qt.QCheckBox and field.kind is bool:
        return _Connector(widget.stateChanged, lambda: widget.checked, widget.setChecked)
    if kind is qt.QLineEdit and field.kind is str:
        return _Connector(widget.textChanged, lambda: widget.text, widget.setText)
    if kind in (qt.QDoubleSpinBox, ctk.ctkSliderWidget) and field.kind is float:
        limits = next((note for note in field.notes if isinstance(note, WithinRange)), None)
        if limits is None and kind is ctk.ctkSliderWidget:
            raise RuntimeError(f"{field.name}: a slider needs a range")
        if limits:
            widget.minimum, widget.maximum = limits.minimum, limits.maximum
        return _Connector(widget.valueChanged, lambda: widget.value, widget.setValue)
    if kind is qt.QComboBox and isinstance(field.kind, type) and issubclass(field.kind, enum.Enum):
        members = list(field.kind)
        label = getattr(field.kind, "label", lambda member: member.name)
        widget.clear()
        for member in members:
            widget.addItem(label(member))
        return _Connector(
            widget.currentIndexChanged,
            lambda: members[widget.currentIndex],
            lambda value: widget.setCurrentIndex(members.index(value)),
        )
    if kind is slicer.qMRMLNodeComboBox and field.is_node:
        widget.nodeTypes = [field.kind.__name__]
        return _Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Slicer has no connector from {kind.__name__} to {field.name}: {field.kind}")
