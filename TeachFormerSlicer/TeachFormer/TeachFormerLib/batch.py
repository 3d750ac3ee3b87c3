"""A folder or table of cases, segmented in the background as by ``teachformer batch``; its state file, followed."""

import json
from pathlib import Path

from .background import BackgroundCommand

STATE_FILE = "state.jsonl"
# Bytes of the state file taken up in one poll: that of a large batch must not hold the window.
BYTES_PER_POLL = 1 << 18


class BatchRun(BackgroundCommand):
    """One batch; polled also after its end, as long as its state file has more to tell.

    Attributes:
        target: the folder of the results.
        cases: the last known line of the state file per case, in the order they first appeared.
    """

    ACCEPTED = (0, 1)  # 1: some cases failed; which ones the state file tells

    def __init__(self, *, model, source, target, resume, device):
        self.target = target
        self.cases = {}
        self._read = 0
        batch = {"source": source, "output": target, "model": str(model.folder), "device": device, "resume": resume}
        super().__init__("cases", json.dumps(batch))

    def poll(self):
        """Takes up new lines of output and of the state file; returns at once."""
        said = super().poll()
        self.cases.update(self._new_states())
        return said

    def _new_states(self):
        states, file = {}, Path(self.target) / STATE_FILE
        try:
            size = file.stat().st_size
            if size < self._read:  # the file was begun anew
                self._read = 0
                self.cases = {}
            if size == self._read:
                return states
            with file.open("rb") as stream:
                stream.seek(self._read)
                content = stream.read(BYTES_PER_POLL)
        except OSError:
            return states
        whole, _newline, _rest = content.rpartition(b"\n")  # a line that is being written is read next time
        if not whole:
            return states
        self._read += len(whole) + 1
        for line in whole.splitlines():
            try:
                entry = json.loads(line.decode("utf-8"))
                states[str(entry["case"])] = entry
            except (ValueError, KeyError, TypeError):
                continue
        return states


def stateOf(entry):
    """State and detail of a case for the table."""
    detail = entry.get("error") or entry.get("cause") or entry.get("message") or ""
    if isinstance(detail, dict):
        detail = detail.get("cause", "")
    seconds = entry.get("seconds")
    if not detail and isinstance(seconds, (int, float)):
        detail = f"{seconds:.1f} s"
    return str(entry.get("state", "")), str(detail)
