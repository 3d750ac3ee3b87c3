"""3D UX-Net, and its 2D form: student S3.

Lee et al., "3D UX-Net: A Large Kernel Volumetric ConvNet Modernizing Hierarchical Transformer for Medical Image
Segmentation", ICLR 2023 (arXiv 2209.15076); used, in a light size, by Teach-Former (Hossain et al., Sci Rep 2025). An
encoder of depthwise convolutions with kernel 7 and a U-Net decoder.

Shapes for widths (f0, f1, f2, f3) = (6, 12, 24, 48) in 3D, (24, 48, 96, 192) in 2D, hidden h = 384, image
``(B, M, *S)``; Res and Up are ``ResidualBlock`` and ``UpBlock``, LN a layer norm over the channels:

==========  ==============  ==================================================================================
stage       output          content
==========  ==============  ==================================================================================
stem        (f0, S/2)       conv k7 s2 - LN; before each later stage LN - conv k2 s2
stage 0..3  o0 (f0, S/2) .. 2 blocks: depthwise conv7 - LN - conv1 to 4 values per channel, each channel by
            o3 (f3, S/16)   itself - GELU - back to 1 - times a learned scale per channel - plus the input.
                            What leaves a stage has an LN of its own
encoder1    (f0, S)         Res of the image
encoder2..5 (f1, S/2) ..    Res of o0, o1, o2, o3
            (h, S/16)
decoder5..2 (f3, S/8) ..    Up, with encoder4, encoder3, encoder2, encoder1
            (f0, S)
decoder1    (f0, S)         Res
head        (out, S)        conv1
==========  ==============  ==================================================================================

Attention: P is encoder5 (384 channels, S/16); Q is decoder1 (f0 channels).

Parameters, as published (Table 1 does not count the channel norms and scales): 3D 2 x 144^3 5.12 M, ours 5,118,752 by
that rule, 5,119,568 in truth; 2D 3 x 384^2 4.71 M, ours 4,715,618 and 4,718,882. Most of the 3D weights sit where
the hidden width stayed at 384: in encoder5 and decoder5.

Weights: the scales start at 1e-6 as published, so a block is an identity at first; the rest PyTorch's defaults.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SegmentationNetwork
from .blocks import ResidualBlock, UpBlock
from .layers import CONVOLUTION, channels_first, channels_last

KERNEL = 7
BLOCKS_PER_STAGE = 2
EXPANSION = 4
INITIAL_SCALE = 1e-6
NORM_EPS = 1e-6


class UXNet(SegmentationNetwork):
    """3D UX-Net in 2D or 3D; see the module's text for the layers.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: not used: the network has no positions.
        widths: channels of the four stages, f0 to f3.
        hidden_size: h, channels of the deepest map.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        image_size: Sequence[int],
        widths: Sequence[int],
        hidden_size: int = 384,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        if len(widths) != 4:
            raise ValueError(f"widths must be four numbers, not {tuple(widths)}.")
        convolution = CONVOLUTION[spatial_dims]
        stem = nn.Sequential(
            convolution(in_channels, widths[0], KERNEL, stride=2, padding=KERNEL // 2), ChannelNorm(widths[0])
        )
        reductions = [
            nn.Sequential(ChannelNorm(source), convolution(source, width, 2, stride=2))
            for source, width in pairwise(widths)
        ]
        self.reductions = nn.ModuleList([stem, *reductions])
        self.stages = nn.ModuleList(
            nn.Sequential(*(LargeKernelBlock(spatial_dims, width) for _ in range(BLOCKS_PER_STAGE))) for width in widths
        )
        self.stage_norms = nn.ModuleList(ChannelNorm(width) for width in widths)

        self.image_encoder = ResidualBlock(spatial_dims, in_channels, widths[0])
        deep = [*widths[1:], hidden_size]
        self.stage_encoders = nn.ModuleList(
            ResidualBlock(spatial_dims, source, width) for source, width in zip(widths, deep, strict=True)
        )
        self.decoders = nn.ModuleList(
            UpBlock(spatial_dims, source, width) for source, width in zip(reversed(deep), reversed(widths), strict=True)
        )
        self.last = ResidualBlock(spatial_dims, widths[0], widths[0])
        self.head = convolution(widths[0], out_channels, 1)

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        x = image
        encoded = [self.image_encoder(image)]
        for reduction, stage, norm, encoder in zip(
            self.reductions, self.stages, self.stage_norms, self.stage_encoders, strict=True
        ):
            x = stage(reduction(x))
            encoded.append(encoder(norm(x)))
        coarse = encoded.pop()
        x = coarse
        for decoder, skip in zip(self.decoders, reversed(encoded), strict=True):
            x = decoder(x, skip)
        x = self.last(x)
        return {"logits": self.head(x), "coarse": coarse, "fine": x}


class LargeKernelBlock(nn.Module):
    """Depthwise conv7, LN, four values per channel and back, each channel by itself; scaled, plus the input."""

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[spatial_dims]
        self.depthwise = convolution(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = ChannelNorm(width)
        self.expand = convolution(width, EXPANSION * width, 1, groups=width)
        self.contract = convolution(EXPANSION * width, width, 1, groups=width)
        self.scale = nn.Parameter(torch.full((width,), INITIAL_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x))
        y = self.contract(F.gelu(self.expand(y)))
        return torch.addcmul(x, y, self.scale.view(-1, *[1] * (x.dim() - 2)))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of ``(B, C, *S)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return channels_first(F.layer_norm(channels_last(x), self.weight.shape, self.weight, self.bias, NORM_EPS))
