"""H-DenseFormer: its taps, its heads, and whether its transformer paths carry anything spatial."""

import hashlib

import pytest
import torch
from small_networks import small_network
from torch import Tensor
from torch.nn import functional as F

from TeachFormerCore.networks import build_network


def contrast(coarse: Tensor) -> float:
    """Standard deviation over space over root mean square, both over all channels: 0 for a spatially dead map."""
    x = coarse.detach().flatten(2)
    return float((x - x.mean(2, keepdim=True)).square().mean().sqrt() / x.square().mean().sqrt())


def ball(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A noisy image with a bright ball somewhere, and its mask."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 3, indexing="ij")
    centre = torch.rand(3, 1, 1, 1, generator=generator) - 0.5
    mask = ((torch.stack(axes) - centre).square().sum(0) < 0.16).long()
    image = torch.stack([0.5 * mask, 2.0 * mask]) + 0.2 * torch.randn(2, 32, 32, 32, generator=generator)
    return image[None], mask[None]


@pytest.mark.parametrize("residual", [False, True])
def test_the_living_variant_varies_over_space_before_and_after_training(residual: bool) -> None:
    torch.manual_seed(0)
    network = small_network("h_denseformer_light", 3, transformer_depth=24, coarse_tap="mpe", residual=residual)
    generator = torch.Generator().manual_seed(0)
    image, _ = ball(generator)

    def measured() -> float:
        with torch.no_grad():
            return contrast(network.eval().forward_with_attention(image)[1])

    before = measured()
    optimiser = torch.optim.Adam(network.train().parameters(), 1e-3)
    losses = []
    for _ in range(6):
        batch, label = ball(generator)
        loss = F.cross_entropy(network(batch), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    after = measured()

    assert losses[-1] < losses[0]
    if residual:
        assert min(before, after) > 0.3
    else:
        assert max(before, after) < 0.001


def test_the_living_variant_is_of_the_same_size_and_shape() -> None:
    published = small_network("h_denseformer", 3)
    living = small_network("h_denseformer", 3, residual=True)
    assert {k: v.shape for k, v in living.state_dict().items()} == {
        k: v.shape for k, v in published.state_dict().items()
    }
    living.load_state_dict(published.state_dict())


def test_weights_that_were_trained_before_keep_fitting() -> None:
    network = build_network("h_denseformer_light", in_channels=2, out_channels=2, image_size=(48, 48, 48))
    names = "\n".join(f"{name} {tuple(value.shape)}" for name, value in sorted(network.state_dict().items()))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "6a1edcc0ba3f825b"


@pytest.mark.parametrize("dims", [2, 3])
def test_deep_supervision_returns_three_more_logits(dims: int) -> None:
    network = small_network("h_denseformer", dims, deep_supervision=True)
    size = (24, 40, 36)[:dims]
    maps = network.training_forward(torch.randn(1, 2, *size))
    assert [weight for _, weight in maps["auxiliary"]] == [0.5, 0.25, 0.125]
    for (logits, _), stride in zip(maps["auxiliary"], (2, 4, 8), strict=True):
        assert logits.shape == (1, 2, *(-(-n // stride) for n in size))
    assert "auxiliary" not in small_network("h_denseformer", dims).training_forward(torch.randn(1, 2, *size))


def test_the_taps() -> None:
    image = torch.randn(1, 2, 48, 48, 48)
    pooled = small_network("h_denseformer", 3).eval()
    tokens = small_network("h_denseformer", 3, coarse_tap="mpe").eval()
    tokens.load_state_dict(pooled.state_dict())
    with torch.no_grad():
        logits, p, q = pooled.forward_with_attention(image)
        same_logits, mpe, same_q = tokens.forward_with_attention(image)
        assert torch.equal(logits, pooled.head(q))
        paths = torch.cat([path(image[:, i : i + 1]) for i, path in enumerate(pooled.paths)], 1)
    assert torch.equal(logits, same_logits)
    assert torch.equal(q, same_q)
    assert p.shape == (1, 32, 3, 3, 3)  # 8 f
    assert torch.equal(mpe, paths)  # M x 4 f
    assert mpe.shape == (1, 32, 3, 3, 3)


def test_positions_start_at_zero() -> None:
    network = small_network("h_denseformer", 2)
    assert all(not path.positions.any() for path in network.paths)
