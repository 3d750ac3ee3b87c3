"""When a training is to stop: a term, gradient or weight that is no longer finite, or finite and out of all bounds."""

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from ..distillation.balancing import gradient_of
from ..errors import TeachFormerError

FIRST_STEPS = 20  # their largest value of a term, or 1 if that is more, is its size
MULTIPLE = 20.0  # of that size: too much (a cross-entropy of 20 gives the truth a probability of 2e-9)
STEPS_ABOVE = 50  # in a row: a hard batch comes and goes, what has run away stays
LIMIT = 1e6  # of any term, and of any weight: too much at once


class DivergenceWatch:
    """Looks at the terms of every step, as they are in the loss, and stops the training by the name of the culprit.

    A term that is NaN or infinite stops it at once, as does one above ``LIMIT``; one that stays above ``MULTIPLE``
    times its size for ``STEPS_ABOVE`` steps in a row has run away. While it is ``alarmed`` no checkpoint is to be
    written, so that the last one is from before; a resumed training therefore begins without an alarm, and the sizes
    are all its state.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, float] = {}
        self._above: dict[str, int] = {}

    @property
    def alarmed(self) -> bool:
        """Whether a term is above its bound now."""
        return any(self._above.values())

    def look(self, terms: Mapping[str, float], *, step: int) -> None:
        """Takes the weighted terms of a step.

        Raises:
            TeachFormerError: naming the term.
        """
        for name, value in terms.items():
            if not isfinite(value) or abs(value) > LIMIT:
                raise stopped(f"The loss term '{name}' became {value:.6g} at step {step}")
            if step < FIRST_STEPS:
                self.sizes[name] = max(1.0, abs(value), self.sizes.get(name, 1.0))
                continue
            size = self.sizes.get(name, 1.0)
            self._above[name] = self._above.get(name, 0) + 1 if abs(value) > MULTIPLE * size else 0
            if self._above[name] == STEPS_ABOVE:
                raise stopped(
                    f"The loss term '{name}' has run away: it is {value:.6g} at step {step} and was above "
                    f"{MULTIPLE * size:.6g} for {STEPS_ABOVE} steps, after at most {size:.6g} at the beginning"
                )

    def state_dict(self) -> dict[str, Any]:
        return {"sizes": self.sizes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sizes = dict(state["sizes"])


def check_gradient(parameters: Iterable[nn.Parameter], terms: Callable[[], Mapping[str, Tensor]], *, step: int) -> None:
    """Looks at a step's gradient before it moves the weights: a finite loss can have one that is not.

    Args:
        parameters: what learns.
        terms: computes the step's terms again, to find out whose gradient it is.

    Raises:
        TeachFormerError: naming the terms.
    """
    learning = [parameter for parameter in parameters if parameter.grad is not None]
    if torch.stack([parameter.grad.norm() for parameter in learning if parameter.grad is not None]).isfinite().all():
        return
    culprits = [name for name, term in terms().items() if not gradient_of(term, learning).isfinite().all()]
    named = f"loss term '{culprits[0]}'" if culprits else "sum of the loss terms"
    raise stopped(f"The gradient of the {named} is not finite at step {step}")


def check_weights(task: nn.Module, *, step: int) -> None:
    """Looks at the weights after a step.

    Raises:
        TeachFormerError: some are not finite, or above ``LIMIT``.
    """
    for name, parameter in task.named_parameters():
        largest = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
        if not largest <= LIMIT:  # NaN too
            raise stopped(
                f"The weights '{name}' reach {largest:.6g} after step {step}, though every loss was in bounds"
            )


def stopped(what: str) -> TeachFormerError:
    """The error of a training that has diverged."""
    return TeachFormerError(
        f"{what}: the training stopped, its last good checkpoint is kept. "
        "Lower optimiser.learning_rate or set precision to fp32, in a new run."
    )
