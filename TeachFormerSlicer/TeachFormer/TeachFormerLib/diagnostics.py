"""What a report of a problem needs, and nothing of a patient: no node names, no paths below the user's folder."""

import platform
import re
import sys
from pathlib import Path

import slicer
from slicer.i18n import tr as _


def text(devices, model, run):
    """Plain text for the clipboard.

    Args:
        devices: what ``launch.py devices`` told, or None.
        model: a `models.Model`, or None.
        run: the last `run.SegmentationRun`, or None.
    """
    lines = [f"TeachFormer in {slicerVersion()}, Python {platform.python_version()}, {platform.platform()}"]
    for name, version in sorted((devices or {}).get("versions", {}).items()):
        lines.append(f"{name}: {version or _('not installed')}")
    for device in (devices or {}).get("devices", ()):
        lines.append(f"device {device['id']}: {device['name']}, free {gigabytes(device['free_bytes'])}")
    for fault in (devices or {}).get("refused", ()):
        lines.append(f"fault: {fault}")
    if model is not None:
        lines.append(f"model: {model.name} {model.card.get('version', '')}, network {model.card.get('network')}")
    if run is not None:
        lines.append(f"last run: {run.state} after {run.seconds:.1f} s on {run.result.get('device', '-')}")
        lines.append(f"grid: {' x '.join(str(n) for n in reversed(run.shape))}")
        if run.failure:
            lines += [f"failure: {run.failure.sentence}", run.failure.original]
    return "\n".join(withoutPrivate(line) for line in lines) + "\n"


def withoutPrivate(line):
    """A line without quoted names and without file names: either may hold a patient's."""
    program = (str(Path(sys.prefix)), str(Path(__file__).parents[2]))
    for folder in program:
        line = line.replace(folder, "<program>")
    line = line.replace(str(Path.home()), "<home>")
    # A path's last parts are the user's; those of the program (File "<program>/...") help and stay.
    return re.sub(r"(?<![\w>])(?:[A-Za-z]:)?(?:[\\/][^\\/\s\"':,()]+){2,}|<home>[^\s\"',]*", "<path>", line)


def slicerVersion():
    app = getattr(slicer, "app", None)
    return f"Slicer {app.applicationVersion}" if app is not None else "Slicer"


def gigabytes(count):
    """E.g. ``11.2 GB``; ``unknown`` for None."""
    return _("unknown") if count is None else f"{count / 1e9:.1f} GB"
