"""Eq. 4 with automatic weights: each distillation term pulls on the student as hard as its labels do."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .processes import mean_over_processes

EVERY = 25  # steps; a look costs one more backward pass for each term and for Eq. 3, in all a tenth of the time
MEMORY = 0.8  # of the scales, from look to look
LARGEST_SCALE = 1e4  # a map without content has hardly any gradient, and that little is noise


class GradientBalancing(nn.Module):
    """Scales of named terms, so that each one's gradient is as long as Eq. 3's.

    Each ``EVERY`` steps, beginning with the first, the ratio of the gradients' lengths over all of the student's
    parameters is taken, and the scales follow it geometrically: log s <- m log s + (1 - m) log ratio, m = ``MEMORY``.
    They are constants to the optimiser, lie between ``LARGEST_SCALE`` and one over it, and are part of the state.

    Args:
        names: of the terms.
    """

    log_scale: Tensor
    steps: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("log_scale", torch.zeros(len(self.names)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def scales(self) -> dict[str, Tensor]:
        """The factor of each term."""
        return dict(zip(self.names, self.log_scale.exp().unbind(), strict=True))

    def step(self, terms: Mapping[str, Tensor], task_loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Counts a training step, and looks at the gradients where it is time.

        Args:
            terms: scalars by name, before any weight.
            task_loss: Eq. 3.
            parameters: of the student.
        """
        if self.steps % EVERY == 0:
            losses = [task_loss, *(terms[name] for name in self.names)]
            wanted, *found = (mean_over_processes(gradient_of(loss, parameters)).norm() for loss in losses)
            log_ratio = (wanted / torch.stack(found)).clamp(1 / LARGEST_SCALE, LARGEST_SCALE).log()
            log_ratio = torch.where(log_ratio.isfinite(), log_ratio, self.log_scale)
            self.log_scale.lerp_(log_ratio, 1 - MEMORY if self.steps else 1.0)
        self.steps += 1


def gradient_of(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The gradient of a scalar with respect to all parameters, as one vector; the graph stays."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
    )
