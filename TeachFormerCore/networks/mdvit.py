"""MDViT, in 2D: the multi-domain vision transformer, a baseline of Table 1.

Du et al., "MDViT: Multi-domain Vision Transformer for Small Medical Image Segmentation Datasets", MICCAI 2023 (arXiv
2307.02100); compared with in Teach-Former (Hossain et al., Sci Rep 2025). A U-shape of transformer stages with
factorised attention (Xu et al., "Co-Scale Conv-Attentional Image Transformers", ICCV 2021), whose heads are weighted
by the domain (data set) an image comes from; in training, an auxiliary branch per domain learns beside it.

Shapes for an image ``(B, M, H, W)``; sizes that are multiples of 32:

==========  ====================  ===============================================================================
stage       output                content
==========  ====================  ===============================================================================
stem        (64, 1/4)             2 x [conv3 s2 - BN - Hardswish], M -> 32 -> 64
encoder1..4 (64, 1/4) (128, 1/8)  depthwise conv3 (s2 from the second on) - conv1 - BN - Hardswish, 2 blocks of
            (320, 1/16)           8 heads, feed-forward 8, 8, 4, 4 times as wide
            (512, 1/32)
bridge      (1024, 1/32)          2 x [conv3 - BN - ReLU], 512 -> 512 -> 1024
decoder1..4 (512, 1/32) ..        bilinear to the skip's size, conv1, concatenate, conv3 in groups - conv1 - BN -
            (64, 1/4)             Hardswish, 2 blocks
head        (out, 1/1)            x4 bilinear, conv1
auxiliary   (out, 1/1)            conv1 of the encoder maps to 512, all at 1/4, with the last decoder map:
                                  conv1 2112 -> 512 - BN - ReLU, x4 bilinear, conv1
==========  ====================  ===============================================================================

Attention: P is the encoder's third stage (320 channels, 1/16); Q is the last decoder map after x4 (64 channels).

Parameters as published in Teach-Former for 3 x 384^2: 30.30 M, ours 30,303,460 by its rule, which counts each stage's
position convolutions three times; in truth 30,135,524 with one auxiliary branch, 28,525,282 without.

With one domain the domain's weights are constants. Weights: linear layers truncated normal 0.02 with zero bias, as
usual for this family; the rest PyTorch's defaults.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SegmentationNetwork

WIDTHS = (64, 128, 320, 512)
MLP_RATIOS = (8, 8, 4, 4)
BLOCKS_PER_STAGE = 2
HEADS = 8
# Kernel sizes of the relative position convolutions and how many heads each serves.
POSITION_KERNELS = ((3, 2), (5, 3), (7, 3))
AUXILIARY_WIDTH = 512
AUXILIARY_WEIGHT = 1.0


class MDViT(SegmentationNetwork):
    """MDViT in 2D; see the module's text for the layers.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 2.
        image_size: not used: positions come from convolutions.
        num_domains: data sets trained on together; the attribute ``domain`` says which one the next batch is from.
        auxiliary_branches: one branch per domain, that of ``domain`` returned as ``auxiliary`` by
            ``training_forward``.

    Raises:
        ValueError: not 2D.
    """

    size_divisor = 32

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        image_size: Sequence[int],
        num_domains: int = 1,
        auxiliary_branches: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        if spatial_dims != 2:
            raise ValueError(f"MDViT exists in 2D only, not in {spatial_dims}D.")
        self.domain = 0
        self.training_only = {"auxiliary": {"auxiliary_branches": False}}
        self.stem = nn.Sequential(
            convolution_norm(in_channels, WIDTHS[0] // 2, nn.Hardswish, stride=2),
            convolution_norm(WIDTHS[0] // 2, WIDTHS[0], nn.Hardswish, stride=2),
        )
        self.embeddings = nn.ModuleList(
            separable_convolution(source, width, groups=source, stride=1 if source == width else 2)
            for source, width in zip([WIDTHS[0], *WIDTHS], WIDTHS, strict=False)
        )
        stages = list(zip(WIDTHS, MLP_RATIOS, strict=True))
        self.encoders = nn.ModuleList(Stage(width, ratio, num_domains) for width, ratio in stages)
        deepest = WIDTHS[-1]
        self.bridge = nn.Sequential(
            convolution_norm(deepest, deepest, nn.ReLU, bias=True),
            convolution_norm(deepest, 2 * deepest, nn.ReLU, bias=True),
        )
        sources = [2 * deepest, *reversed(WIDTHS[1:])]
        self.upsamplings = nn.ModuleList(
            SkipMerging(source, width) for source, width in zip(sources, reversed(WIDTHS), strict=True)
        )
        self.decoders = nn.ModuleList(Stage(width, ratio, num_domains) for width, ratio in reversed(stages))
        self.head = nn.Conv2d(WIDTHS[0], out_channels, 1)
        self.auxiliary = nn.ModuleList(
            AuxiliaryBranch(out_channels) for _ in range(num_domains if auxiliary_branches else 0)
        )
        self.apply(initialise)

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        x = self.stem(image)
        encoded: list[Tensor] = []
        for embedding, encoder in zip(self.embeddings, self.encoders, strict=True):
            x = encoder(embedding(x), self.domain)
            encoded.append(x)

        x = self.bridge(x)
        for merging, decoder, skip in zip(self.upsamplings, self.decoders, reversed(encoded), strict=True):
            x = decoder(merging(x, skip), self.domain)
        fine = upsample(x, image.shape[2:])
        maps: dict[str, Any] = {"logits": self.head(fine), "coarse": encoded[2], "fine": fine}
        if training_terms and self.auxiliary:
            logits = self.auxiliary[self.domain](encoded, x, image.shape[2:])
            maps["auxiliary"] = [(logits, AUXILIARY_WEIGHT)]
        return maps


def initialise(module: nn.Module) -> None:
    """Linear layers: truncated normal weights, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation to a size; nothing where it has it."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def convolution_norm(
    source: int, width: int, activation: type[nn.Module], *, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """conv3 - BN - activation."""
    return nn.Sequential(
        nn.Conv2d(source, width, 3, stride=stride, padding=1, bias=bias), nn.BatchNorm2d(width), activation()
    )


def separable_convolution(source: int, width: int, *, groups: int, stride: int = 1) -> nn.Sequential:
    """conv3 in groups to as many channels as groups - conv1 - BN - Hardswish."""
    return nn.Sequential(
        nn.Conv2d(source, groups, 3, stride=stride, padding=1, groups=groups, bias=False),
        nn.Conv2d(groups, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.Hardswish(),
    )


class SkipMerging(nn.Module):
    """Bilinear to the skip's size, conv1 to its width, concatenation, separable convolution."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(source, width, 1)
        self.merge = separable_convolution(2 * width, width, groups=width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.merge(torch.cat([self.narrow(upsample(x, skip.shape[2:])), skip], 1))


class Stage(nn.Module):
    """Two transformer blocks that share their position convolutions: ``(B, C, H, W)`` -> the same."""

    def __init__(self, width: int, ratio: int, num_domains: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.relative_position = RelativePosition(width)
        self.blocks = nn.ModuleList(
            Block(width, ratio, num_domains, self.position, self.relative_position) for _ in range(BLOCKS_PER_STAGE)
        )

    def forward(self, x: Tensor, domain: int) -> Tensor:
        for block in self.blocks:
            x = block(x, domain)
        return x


class Block(nn.Module):
    """Position convolution, factorised attention and feed-forward, each with a residual."""

    def __init__(
        self, width: int, ratio: int, num_domains: int, position: nn.Module, relative_position: nn.Module
    ) -> None:
        super().__init__()
        self.position = position
        self.attention_norm = nn.LayerNorm(width)
        self.attention = FactorisedAttention(width, num_domains, relative_position)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor, domain: int) -> Tensor:
        grid = x.shape[2:]
        x = (x + self.position(x)).flatten(2).transpose(1, 2)
        x = x + self.attention(self.attention_norm(x), grid, domain)
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x.transpose(1, 2).unflatten(2, grid)


class RelativePosition(nn.Module):
    """Depthwise convolutions of the values, 3x3, 5x5 and 7x7 for groups of heads: ``(B, C, H, W)`` -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widths = [heads * width // HEADS for _, heads in POSITION_KERNELS]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
            for channels, (kernel, _) in zip(self.widths, POSITION_KERNELS, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.convolutions, x.split(self.widths, 1), strict=True)
        return torch.cat([convolution(part) for convolution, part in parts], 1)


class FactorisedAttention(nn.Module):
    """q (softmax(k)^T v) / sqrt(d) plus q times the position convolution of v, heads weighted by the domain.

    The cost is linear in the tokens N: ``(B, N, C)`` -> the same.
    """

    def __init__(self, width: int, num_domains: int, relative_position: nn.Module) -> None:
        super().__init__()
        self.scale = (width // HEADS) ** -0.5
        self.num_domains = num_domains
        self.qkv = nn.Linear(width, 3 * width)
        self.relative_position = relative_position
        self.domain_weights = nn.Sequential(
            nn.Linear(num_domains, width // 2),
            nn.ReLU(inplace=True),
            nn.Linear(width // 2, width),
            nn.Unflatten(-1, (HEADS, -1)),
        )
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, grid: torch.Size, domain: int) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        factor = query @ (key.softmax(2).transpose(2, 3) @ value)
        values = value.transpose(2, 3).flatten(1, 2).unflatten(2, grid)
        convolved = self.relative_position(values).flatten(2).unflatten(1, (HEADS, -1)).transpose(2, 3)
        x = self.scale * factor + query * convolved

        one_hot = torch.zeros(self.num_domains, device=x.device, dtype=x.dtype)
        one_hot[domain] = 1
        x = x * self.domain_weights(one_hot).softmax(0)[:, None]
        return self.project(x.transpose(1, 2).flatten(2))


class AuxiliaryBranch(nn.Module):
    """A domain's own decoder: all encoder maps and the last decoder map, brought to 1/4, to logits of a full size."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(width, AUXILIARY_WIDTH, 1) for width in WIDTHS)
        self.merge = nn.Sequential(
            nn.Conv2d(len(WIDTHS) * AUXILIARY_WIDTH + WIDTHS[0], AUXILIARY_WIDTH, 1),
            nn.BatchNorm2d(AUXILIARY_WIDTH),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv2d(AUXILIARY_WIDTH, out_channels, 1)

    def forward(self, encoded: Sequence[Tensor], decoded: Tensor, size: Sequence[int]) -> Tensor:
        quarter = decoded.shape[2:]
        maps = [upsample(narrow(x), quarter) for narrow, x in zip(self.narrow, encoded, strict=True)]
        return self.head(upsample(self.merge(torch.cat([*maps, decoded], 1)), size))
