"""Blocks that several networks share: UNETR's residual convolutions and decoder step, the plain transformer layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import CONVOLUTION, INSTANCE_NORM, TRANSPOSED_CONVOLUTION

LEAKY_SLOPE = 0.01
POSITION_STD = 0.02


class ResidualBlock(nn.Module):
    """conv3 - IN - LeakyReLU - conv3 - IN, plus the input (through conv1 - IN where the width changes), LeakyReLU.

    Convolutions have no bias and instance norms (IN) no weights: ``(B, source, *S)`` -> ``(B, width, *S)``.
    """

    def __init__(self, spatial_dims: int, source: int, width: int) -> None:
        super().__init__()
        convolution, norm = CONVOLUTION[spatial_dims], INSTANCE_NORM[spatial_dims]
        self.convolution1 = convolution(source, width, 3, padding=1, bias=False)
        self.norm1 = norm(width)
        self.convolution2 = convolution(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.shortcut = (
            nn.Sequential(convolution(source, width, 1, bias=False), norm(width)) if source != width else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.convolution1(x)), LEAKY_SLOPE, inplace=True)
        y = self.norm2(self.convolution2(y))
        return F.leaky_relu(y.add_(self.shortcut(x)), LEAKY_SLOPE, inplace=True)


def doubling(spatial_dims: int, source: int, width: int) -> nn.Module:
    """Twice the size: a transposed convolution k2 s2 without bias."""
    return TRANSPOSED_CONVOLUTION[spatial_dims](source, width, 2, stride=2, bias=False)


class UpBlock(nn.Module):
    """Twice the size, concatenation with a skip of equal width, residual block: ``(source, S)`` -> ``(width, 2S)``."""

    def __init__(self, spatial_dims: int, source: int, width: int) -> None:
        super().__init__()
        self.up = doubling(spatial_dims, source, width)
        self.residual = ResidualBlock(spatial_dims, 2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.residual(torch.cat([self.up(x), skip], 1))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward over tokens ``(B, N, width)``, each with a residual.

    Query, key and value have no bias; the feed-forward is Linear - GELU - Linear.
    """

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"A width of {width} cannot be split into {heads} heads.")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))

    def attend(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value)
        return self.project(x.transpose(1, 2).flatten(2))


def learned_positions(tokens: int, width: int) -> nn.Parameter:
    """Position embeddings ``(1, tokens, width)``, truncated normal of standard deviation 0.02 as in the ViT papers."""
    positions = nn.Parameter(torch.empty(1, tokens, width))
    nn.init.trunc_normal_(positions, std=POSITION_STD)
    return positions


def to_tokens(x: Tensor) -> Tensor:
    """A map ``(B, C, *S)`` as tokens ``(B, N, C)`` in row-major order."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: torch.Size) -> Tensor:
    """Tokens ``(B, N, C)`` as a map ``(B, C, *grid)``."""
    return tokens.transpose(1, 2).unflatten(2, tuple(grid))
