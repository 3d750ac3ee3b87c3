"""PyTorch's layers by number of spatial dimensions, so that one file serves 2D and 3D."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolution3d(nn.Conv3d):
    """``nn.Conv3d``, in float32 where a processor's bfloat16 cannot be trusted.

    oneDNN (3.12, in PyTorch 2.13) gives arbitrary weight gradients, not even finite ones, for bfloat16 convolutions
    of kernel 3 over maps with exactly 2 slices, which is what 24 slices become at 1/16.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[2] == 2 and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                bias = None if self.bias is None else self.bias.float()
                return self._conv_forward(x.float(), self.weight.float(), bias).to(self.weight.dtype)
        return super().forward(x)


CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: Convolution3d}
TRANSPOSED_CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}


class SoftmaxAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v; a module, so that the rule of Table 1 can count its softmax."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Query, key, value ``(B, heads, n, d)``, bias broadcastable to ``(B, heads, n, n)``; ``(B, heads, n, d)``."""
        differentiated = bias.requires_grad and torch.is_grad_enabled() and not torch.jit.is_tracing()
        if differentiated and bias.device.type == "cpu":
            # PyTorch has no fused kernel for this, and its fallback guards against rows that are masked throughout.
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            return scores.add_(bias).softmax(-1).to(value.dtype) @ value
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def channels_last(x: Tensor) -> Tensor:
    """A view ``(B, *S, C)`` of a map ``(B, C, *S)``."""
    return x.movedim(1, x.dim() - 1)


def channels_first(x: Tensor) -> Tensor:
    """A view ``(B, C, *S)`` of a map ``(B, *S, C)``."""
    return x.movedim(x.dim() - 1, 1)
