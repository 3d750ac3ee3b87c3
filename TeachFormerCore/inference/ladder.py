"""When memory runs out all the same: the next way to compute that needs less, and one sentence that says so."""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import TeachFormerError
from .runtimes.interface import Rung

Result = TypeVar("Result")

# What libraries say in a RuntimeError: PyTorch's allocator, C++ (OpenVINO, ITK), ONNX Runtime.
WORDS = ("out of memory", "can't allocate memory", "bad_alloc", "bad allocation", "failed to allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of whatever library means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def down_the_ladder(
    rungs: Sequence[Rung], attempt: Callable[[Rung], Result], *, start: int = 0
) -> tuple[Result, str | None]:
    """The result of the first rung whose memory suffices, and a notice where that is not the first.

    Args:
        rungs: each needs less memory than the one before.
        attempt: computes by one of them.
        start: those before it are known not to suffice.

    Raises:
        TeachFormerError: memory ran out on the last rung.
    """
    failed = list(rungs[:start])
    for rung in rungs[start:]:
        try:
            result = attempt(rung)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed.append(rung)
        else:
            return result, _notice(failed, rung)
        _release()  # outside of the handler, whose traceback keeps the arrays alive
    tried = ", then ".join(rung.words for rung in failed)
    raise TeachFormerError(
        f"The memory ran out, also on the last way to compute (tried {tried}): close other programs, or give a smaller "
        "region with --region-ras."
    )


def _notice(failed: list[Rung], rung: Rung) -> str | None:
    if not failed:
        return None
    warning = "" if rung.window == failed[0].window else ", which can change the mask a little"
    return f"The memory did not suffice {failed[-1].words}: it was computed {rung.words}{warning}."


def _release() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
