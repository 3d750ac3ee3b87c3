"""Layers that go around a processor's slow kernels compute what PyTorch's own layers compute."""

import pytest
import torch
from torch import Tensor, nn

from TeachFormerCore.networks.layers import Convolution3d, InstanceNorm3d


def outputs_and_gradients(module: nn.Module, image: Tensor) -> list[Tensor]:
    """The output of a module, and the gradients of its image and weights for one and the same loss."""
    x = image.clone().requires_grad_()  # keeps the memory layout
    y = module(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad.clone() for parameter in module.parameters())]


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_stays_in_channels_last_and_is_the_same(affine: bool) -> None:
    torch.manual_seed(0)
    plain, ours = nn.InstanceNorm3d(5, affine=affine), InstanceNorm3d(5, affine=affine)
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
        ours.load_state_dict(plain.state_dict())
    image = (3 * torch.randn(3, 5, 4, 6, 8) + 2).contiguous(memory_format=torch.channels_last_3d)
    for mine, theirs in zip(outputs_and_gradients(ours, image), outputs_and_gradients(plain, image), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert ours(image).is_contiguous(memory_format=torch.channels_last_3d)


def test_instance_norm_of_bf16_keeps_it() -> None:
    image = torch.randn(2, 4, 4, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    mine = InstanceNorm3d(4)(image)
    assert mine.dtype == torch.bfloat16
    torch.testing.assert_close(mine.float(), nn.InstanceNorm3d(4)(image.float()), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [(8, 8, 8), (16, 8, 4)])
def test_patch_embedding_is_a_convolution(kernel: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(2, 6, kernel, stride=kernel, bias=bias)
    ours = Convolution3d(2, 6, kernel, stride=kernel, bias=bias)
    ours.load_state_dict(plain.state_dict())
    image = torch.randn(2, 2, 3 * kernel[0], 2 * kernel[1], kernel[2])
    called = []
    ours._embed_patches, embed = lambda x: called.append(1) or embed(x), ours._embed_patches
    for mine, theirs in zip(outputs_and_gradients(ours, image), outputs_and_gradients(plain, image), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert called
