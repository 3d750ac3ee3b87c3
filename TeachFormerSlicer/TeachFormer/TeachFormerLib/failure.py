"""What went wrong, for the status line and the log: cause, what to do, the original message."""

import json
import traceback
from dataclasses import dataclass

from slicer.i18n import tr as _

NOT_INSTALLED = 3


@dataclass(frozen=True)
class Failure:
    cause: str
    fix: str = ""
    original: str = ""
    exitCode: int = 4

    @property
    def sentence(self):
        """The cause, and what to do about it."""
        return f"{self.cause}: {self.fix}" if self.fix else self.cause

    @classmethod
    def of(cls, error, cause):
        """An exception; its own words are kept."""
        original = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return cls(cause=f"{cause} ({error})", fix=_("see the log below."), original=original)

    @classmethod
    def read(cls, file, exitCode, log):
        """What a worker's error file says; without one, its exit code and last words."""
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            return cls(told["cause"], told["fix"], told["original"], told["exit_code"])
        except (OSError, ValueError, KeyError):
            return cls.ended(exitCode, log)

    @classmethod
    def ended(cls, exitCode, log):
        """A process that ended with an exit code; a negative one is a signal (-9: often the memory ran out)."""
        said = [line for line in log if line.strip()]
        errors = [line for line in said if "error: " in line]
        if errors:
            cause, fix = errors[-1].split("error: ", 1)[1], ""
        elif any(line.startswith("Traceback (") for line in said):  # nobody foresaw it: its last line names it
            cause, fix = _("The computation broke off ({error})").format(error=said[-1]), _("see the log below.")
        else:
            cause = _("The computation ended without a result (exit code {code})").format(code=exitCode)
            fix = _("the memory may have run out: close other programs, choose the processor, or a smaller box.")
        return cls(cause=cause, fix=fix, original="\n".join(said[-40:]), exitCode=exitCode)
