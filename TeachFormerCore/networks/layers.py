"""PyTorch's layers by number of spatial dimensions, so that one file serves 2D and 3D."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A patch embedding of 16^3 is one; the halvings of Swin-UNETR and UX-Net (2^3) are faster as convolutions.
LARGE_PATCH = 512


class Convolution3d(nn.Conv3d):
    """``nn.Conv3d``, with two ways around what oneDNN (3.12, in PyTorch 2.13) does on processors in training.

    Weight gradients of bfloat16 convolutions of kernel 3 over maps with exactly 2 slices, which is what 24 slices
    become at 1/16, are arbitrary, not even finite: these are computed in float32. Those of large patches that do not
    overlap take longer than all else (UNETR's 16^3: 0.6 of 1.6 s a step): these patches are rows of a matrix product.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu":
            if x.shape[2] == 2:
                with torch.autocast("cpu", enabled=False):
                    bias = None if self.bias is None else self.bias.float()
                    return self._conv_forward(x.float(), self.weight.float(), bias).to(self.weight.dtype)
            if self.kernel_size == self.stride and prod(self.kernel_size) >= LARGE_PATCH and self.groups == 1:
                return self._embed_patches(x)
        return super().forward(x)

    def _embed_patches(self, x: Tensor) -> Tensor:
        """The same for sizes that are multiples of the kernel's, without padding."""
        split = [part for n, k in zip(x.shape[2:], self.kernel_size, strict=True) for part in (int(n) // k, k)]
        patches = x.unflatten(4, split[4:]).unflatten(3, split[2:4]).unflatten(2, split[:2])
        rows = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return channels_first(F.linear(rows, self.weight.flatten(1), self.bias))


class InstanceNorm3d(nn.InstanceNorm3d):
    """``nn.InstanceNorm3d``, without leaving channels-last on processors.

    PyTorch's kernel copies such a map to the other layout and back, forward and backward, which is a third of a
    training step; its batch normalisation does not, and over one sample it is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        native = x.device.type == "cpu" and not torch.jit.is_tracing()
        if not native or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        if len(x) == 1:
            return self._of_one(x)
        return torch.cat([self._of_one(sample) for sample in x.split(1)])

    def _of_one(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)


CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: Convolution3d}
TRANSPOSED_CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: InstanceNorm3d}
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
            # The scores are by far the largest tensor here: they stay in the precision of the query.
            with torch.autocast("cpu", enabled=False):
                scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
                return scores.add_(bias.to(scores.dtype)).softmax(-1) @ value
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def channels_last(x: Tensor) -> Tensor:
    """A view ``(B, *S, C)`` of a map ``(B, C, *S)``."""
    return x.movedim(1, x.dim() - 1)


def channels_first(x: Tensor) -> Tensor:
    """A view ``(B, C, *S)`` of a map ``(B, *S, C)``."""
    return x.movedim(x.dim() - 1, 1)
