"""MDViT: factorised attention against its formula, domains and their branches, sizes."""

import pytest
import torch
from small_networks import small_network
from torch import nn

from TeachFormerCore.networks.counting import count_parameters
from TeachFormerCore.networks.mdvit import HEADS, AuxiliaryBranch, FactorisedAttention, RelativePosition


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def test_factorised_attention_by_its_formula() -> None:
    torch.manual_seed(0)
    attention = FactorisedAttention(16, 1, Nothing())
    attention.project = nn.Identity()
    for layer in (attention.domain_weights[0], attention.domain_weights[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(1, 6, 16)
    query, key, value = attention.qkv(x)[0].view(6, 3, HEADS, 2).unbind(1)
    expected = torch.zeros(6, HEADS, 2)
    for head in range(HEADS):
        weights = key[:, head].exp() / key[:, head].exp().sum(0)  # over the tokens
        context = weights.T @ value[:, head]
        expected[:, head] = query[:, head] @ context / 2**0.5
    # Equal weights for all domains share one between the heads.
    torch.testing.assert_close(attention(x, torch.Size((2, 3)), 0)[0], expected.flatten(1) / HEADS)


def test_relative_positions_multiply_the_query() -> None:
    attention = FactorisedAttention(16, 1, nn.Identity())
    attention.project = nn.Identity()
    without = FactorisedAttention(16, 1, Nothing())
    without.project = nn.Identity()
    without.load_state_dict(attention.state_dict())
    x = torch.randn(1, 6, 16)
    query, _, value = attention.qkv(x)[0].view(6, 3, 16).unbind(1)
    weights = attention.domain_weights(torch.ones(1)).softmax(0).flatten()
    difference = attention(x, torch.Size((2, 3)), 0) - without(x, torch.Size((2, 3)), 0)
    torch.testing.assert_close(difference[0], query * value * weights)


def test_relative_positions_have_windows_of_3_5_and_7() -> None:
    convolutions = RelativePosition(64).convolutions
    assert [c.kernel_size[0] for c in convolutions] == [3, 5, 7]
    assert [c.groups for c in convolutions] == [16, 24, 24]


def test_sizes_of_the_branches() -> None:
    assert count_parameters(AuxiliaryBranch(2)) == 1_610_242
    main = count_parameters(small_network("mdvit", 2, in_channels=3))
    assert main == 28_525_282
    assert main + 4 * 1_610_242 == 34_966_250  # the official network, with a branch for each of four data sets


def test_domains_differ_and_have_their_own_branch() -> None:
    torch.manual_seed(0)
    network = small_network("mdvit", 2, num_domains=2, auxiliary_branches=True).eval()
    assert len(network.auxiliary) == 2
    for module in network.modules():
        if isinstance(module, FactorisedAttention):
            nn.init.normal_(module.domain_weights[0].weight)
    image = torch.randn(1, 2, 64, 64)
    calls: list[int] = []
    for number, branch in enumerate(network.auxiliary):
        branch.register_forward_hook(lambda *_, number=number: calls.append(number))
    with torch.no_grad():
        first = network.training_forward(image)
        network.domain = 1
        second = network.training_forward(image)
        network(image)
    assert calls == [0, 1]
    (logits, weight), = first["auxiliary"]  # fmt: skip
    assert logits.shape == (1, 2, 64, 64)
    assert weight == 1.0
    assert not torch.allclose(first["logits"], second["logits"])


@pytest.mark.parametrize("size", [(48, 80), (33, 31)])
def test_sizes_are_filled_up_to_32(size: tuple[int, int]) -> None:
    network = small_network("mdvit", 2).eval()
    with torch.no_grad():
        maps = network.training_forward(torch.randn(1, 2, *size))
    assert maps["logits"].shape == (1, 2, *size)
    assert maps["coarse"].shape == (1, 320, *(-(-n // 16) for n in size))
    assert maps["fine"].shape == (1, 64, *size)


def test_linear_layers_start_as_transformers_do() -> None:
    qkv = small_network("mdvit", 2).encoders[2].blocks[0].attention.qkv
    assert 0.0195 < qkv.weight.std() < 0.0205
    assert not qkv.bias.any()
