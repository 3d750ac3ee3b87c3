"""The learnt projection of Eq. 1's ``projected`` form: the student's channels in the teacher's terms."""

import torch
from torch import Tensor, nn

from ..networks import SegmentationNetwork


class ChannelProjection(nn.Module):
    """A 1x1(x1) convolution without bias, ``(B, K, *S)`` -> ``(B, K', *S)``, as FitNets' regressors (Romero 2015).

    It learns beside the student and is thrown away with the teacher: the student keeps its own form.

    Args:
        student_channels: K.
        teacher_channels: K'.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(student_channels, teacher_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The projected map, in float32 whatever the precision around it."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("ij,bj...->bi...", self.matrix.weight, x.float())


@torch.no_grad()
def map_channels(network: SegmentationNetwork) -> tuple[int, int]:
    """Channels of a network's maps P and Q, from the smallest image it takes; the network stays as it was."""
    parameter = next(network.parameters())
    size = network.padded_size([1] * network.spatial_dims)
    training = network.training
    network.eval()
    try:
        # The class's own method: a compiled one would be compiled for this size too.
        image = torch.zeros(1, network.in_channels, *size, device=parameter.device, dtype=parameter.dtype)
        maps = type(network).maps(network, image)
    finally:
        network.train(training)
    return maps["coarse"].shape[1], maps["fine"].shape[1]
