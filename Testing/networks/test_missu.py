"""MISSU: its fusion in training and inference, its two presets, its transformer."""

import pytest
import torch
from small_networks import small_network

from TeachFormerCore.networks import build_network
from TeachFormerCore.networks.counting import count_parameters, measure
from TeachFormerCore.networks.missu import DILATIONS, Fusion, MultiScaleFusion, dilated_branch

IMAGE = torch.randn(1, 2, 16, 32, 16, generator=torch.Generator().manual_seed(0))


def test_local_fusion_gives_the_pairs_in_training_only() -> None:
    network = small_network("missu", 3, fusion="local")
    maps = network.training_forward(IMAGE)
    sizes = [(16, 32, 16), (8, 16, 8), (4, 8, 4)]
    for (a, b), width, size in zip(maps["self_distillation"], (8, 16, 32), sizes, strict=True):
        assert a.shape == b.shape == (1, width, *size)
    assert "self_distillation" not in network.eval().training_forward(IMAGE)


def test_only_the_pairs_reach_the_fusion_and_they_reach_both_sides() -> None:
    network = small_network("missu", 3, fusion="local")
    maps = network.training_forward(IMAGE)
    maps["logits"].square().mean().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in network.fusion.parameters())
    network.zero_grad()
    sum((a.abs().sum(1) - b.abs().sum(1)).square().mean() for a, b in maps["self_distillation"]).backward()
    assert all(parameter.grad.any() for parameter in network.fusion.parameters())
    assert all(parameter.grad.any() for parameter in network.encoders[:3].parameters())


def test_local_fusion_is_gone_at_inference() -> None:
    network = small_network("missu", 3, fusion="local").eval()
    plain = small_network("missu", 3).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("fusion.")})
    calls: list[object] = []
    network.fusion.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.equal(network(IMAGE), plain(IMAGE))
        assert torch.equal(network.training_forward(IMAGE)["logits"], plain(IMAGE))
    assert not calls


def test_output_fusion_stays() -> None:
    network = small_network("missu", 3, fusion="output").eval()
    assert "self_distillation" not in network.training_forward(IMAGE)
    with torch.no_grad():
        before = network(IMAGE)
        network.fusion.blocks[0].branches[0][0].weight.mul_(2)
        assert not torch.allclose(network(IMAGE), before)
    assert len(network.train().training_forward(IMAGE)["self_distillation"]) == 3


@pytest.mark.parametrize(("dilations", "field"), list(zip(DILATIONS, (3, 7, 9, 19), strict=True)))
def test_the_branches_see_what_the_paper_says(dilations: tuple[int, ...], field: int) -> None:
    branch = dilated_branch(1, dilations)
    for parameter in branch.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    x = torch.zeros(1, 1, 25, 25, 25, requires_grad=True)
    branch(x)[0, 0, 12, 12, 12].backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.amin(0) == 12 - field // 2).all()
    assert (seen.amax(0) == 12 + field // 2).all()


def test_a_fusion_block_without_weights_is_the_identity() -> None:
    block = MultiScaleFusion(2)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 4, 4, 4)
    assert torch.equal(block(x), x)


def test_sizes_of_the_fusion_blocks() -> None:
    fusion = Fusion((16, 32, 64))
    assert [count_parameters(block) for block in fusion.blocks] == [49_312, 196_928, 787_072]
    assert count_parameters(fusion) == 1_107_744


def test_the_papers_own_preset() -> None:
    with torch.device("meta"):
        network = build_network("missu", in_channels=4, out_channels=4, image_size=(128,) * 3, preset="paper")
        counts = measure(network, torch.empty(1, 4, 128, 128, 128))
        plain = build_network("missu", in_channels=4, out_channels=4, image_size=(128,) * 3, transformer=False)
        fused = build_network(
            "missu", in_channels=4, out_channels=4, image_size=(128,) * 3, preset="paper", fusion="output"
        )
        fused_counts = measure(fused, torch.empty(1, 4, 128, 128, 128))
    assert counts.table1_parameters == 9_773_652
    assert counts.table1_operations == 132_967_825_408
    assert counts.coarse_shape == (128, 8, 8, 8)
    assert (fused_counts.table1_operations - counts.table1_operations) / 1e9 == pytest.approx(186.2, abs=0.05)
    transformer = 4 * (4 * 512**2 + 2 * 512 * 1024 + 512 + 1024 + 512 + 4 * 512) + 2 * 512
    assert transformer + 16**3 * 512 == 10_503_168
    surroundings = 128 * 512 + 512 + 512 * 128 + 128
    assert count_parameters(network) - count_parameters(plain) == 10_503_168 + surroundings


def test_without_the_transformer_it_is_a_u_net() -> None:
    network = small_network("missu", 3, transformer=False).eval()
    assert not any("layers" in name or "positions" in name for name in network.state_dict())
    with torch.no_grad():
        logits, coarse, fine = network.forward_with_attention(IMAGE)
    assert (logits.shape[1], coarse.shape[1], fine.shape[1]) == (2, 64, 8)
