"""What went wrong, for a person and for a file: cause, remedy, the underlying error."""

import traceback
from dataclasses import dataclass

from ..errors import TeachFormerError, as_teachformer_error


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What goes into an error file: the cause, what to do about it, the underlying error, the exit code."""

    cause: str
    fix: str
    original: str
    exit_code: int

    @property
    def message(self) -> str:
        """The whole sentence."""
        return f"{self.cause}: {self.fix}" if self.fix else self.cause


def explain(error: Exception) -> Failure:
    """Any error as cause, remedy and exit code; no words of the original are lost."""
    original = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, TeachFormerError):
        cause = error.__cause__
        original = f"{type(cause).__name__}: {cause}" if cause else ""
    told = as_teachformer_error(error)
    cause_words, fix = split_message(str(told))
    return Failure(cause=cause_words, fix=fix, original=original, exit_code=told.exit_code)


def split_message(message: str) -> tuple[str, str]:
    """Cause and remedy of a message "cause: remedy": the two sides of its first colon outside parentheses.

    Joined by ``": "`` they are the message again; without such a colon it is all cause.
    """
    depth = 0
    for place, letter in enumerate(message):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and message.startswith(": ", place):
            return message[:place], message[place + 2 :]
    return message, ""
