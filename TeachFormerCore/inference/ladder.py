"""When memory runs out all the same: the next way to compute that needs less, and one sentence that says so."""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..errors import TeachFormerError
from .runtimes.interface import Rung

Result = TypeVar("Result")

# What libraries say: PyTorch's allocator, C++ (OpenVINO, ITK), ONNX Runtime (whose errors have no base of their own).
WORDS = ("out of memory", "can't allocate memory", "bad_alloc", "bad allocation", "failed to allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of whatever library means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error).lower() for words in WORDS)


def down_the_ladder(
    rungs: Iterable[Rung], attempt: Callable[[Rung], Result], *, fits: Callable[[Rung], bool] = lambda rung: True
) -> tuple[Result, str | None]:
    """The result of the first rung whose memory suffices, and a notice where that is not the first.

    Args:
        rungs: each needs less memory than the one before; one is asked for only when it is needed.
        attempt: computes by one of them.
        fits: whether there is memory enough for one, by an estimate.

    Raises:
        TeachFormerError: memory ran out on the last rung.
    """
    before: list[Rung] = []
    for before, rung in _worth_trying(rungs, fits):
        try:
            result = attempt(rung)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return result, _notice(before, rung)
        _release()  # outside of the handler, whose traceback keeps the arrays alive
    tried = ", then ".join(one.words for one in [*before, rung])
    raise TeachFormerError(
        f"The memory ran out, also on the last way to compute (tried {tried}): close other programs, or give a smaller "
        "region with --region-ras."
    )


def _worth_trying(rungs: Iterable[Rung], fits: Callable[[Rung], bool]) -> Iterator[tuple[list[Rung], Rung]]:
    """Each rung that fits, with those before it; where none does the last one all the same: it is an estimate."""
    seen: list[Rung] = []
    none_fits = True
    for rung in rungs:
        if fits(rung):
            none_fits = False
            yield list(seen), rung
        seen.append(rung)
    if none_fits:
        yield seen[:-1], seen[-1]


def _notice(before: list[Rung], rung: Rung) -> str | None:
    if not before:
        return None
    warning = "" if rung.window == before[0].window else ", which can change the mask a little"
    return f"The memory did not suffice {before[-1].words}: it was computed {rung.words}{warning}."


def _release() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
