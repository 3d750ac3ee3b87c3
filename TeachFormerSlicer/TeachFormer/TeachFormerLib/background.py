"""A command of the program ``teachformer`` in a process of its own, with its lines kept."""

from slicer.i18n import tr as _

from .failure import Failure
from .run import launcher
from .runner import ProcessRunner, parse

LINES_KEPT = 2000


class BackgroundCommand:
    """One command; `poll` it until it is not ``running``.

    Attributes:
        log: its last lines.
        progress: 0..1 where the command tells it, else None.
        comment: what it last said it is doing.
        failure: what went wrong, once it ended; None otherwise.
    """

    # Exit codes of a command that did what it was asked for.
    ACCEPTED = (0,)

    def __init__(self, *words):
        self.log, self.progress, self.comment, self.failure = [], None, "", None
        self.cancelled = False
        self.exitCode = None
        self._runner = None
        try:
            self._runner = ProcessRunner([*launcher(), *words])
            self._runner.start()
        except OSError as error:
            self._runner = None
            self.failure = Failure.of(error, _("The process could not be started"))
            self.log = self.failure.original.splitlines()

    @property
    def running(self):
        return self._runner is not None and self._runner.running

    def poll(self):
        """The new lines; returns at once."""
        if self._runner is None:
            return []
        said = []
        for line in self._runner.poll():
            tag, text = parse(line)
            if tag == "filter-progress":
                self.progress = float(text)
            elif tag == "filter-comment":
                self.comment = text
            elif not tag:
                said.append(text)
        self.log = (self.log + said)[-LINES_KEPT:]
        if not self._runner.running and self.exitCode is None:
            self.exitCode = self._runner.returncode
            if self.exitCode not in self.ACCEPTED and not self._runner.cancelled:
                self.failure = Failure.ended(self.exitCode, self.log)
        return said

    def stop(self):
        """Ends the process within 2 s; returns at once."""
        self.cancelled = True
        if self._runner:
            self._runner.cancel()

    def wait(self):
        """Waits for the end of the process, for a thread that tidies up after it."""
        if self._runner:
            self._runner.wait()

    def close(self):
        """Ends the process and waits for it."""
        if self._runner:
            self._runner.close()
