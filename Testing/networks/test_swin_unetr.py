"""Swin-UNETR's own parts: windows against a slow computation token by token, and the stage nothing depends on."""

import pytest
import torch
from small_networks import small_network
from torch import Tensor
from torch.nn import functional as F

from TeachFormerCore.networks.swin_unetr import WINDOW, PatchMerging, WindowAttention


def attention_token_by_token(layer: WindowAttention, x: Tensor) -> Tensor:
    """The same attention in 2D from its definition: each token sees those of its shifted window that are near it."""
    height, width = x.shape[1:3]
    window = [min(WINDOW, n) for n in (height, width)]
    shift = [3 if layer.shifted and n > WINDOW else 0 for n in (height, width)]
    filled = [-(-n // w) * w for n, w in zip((height, width), window, strict=True)]
    x = F.pad(x, (0, 0, 0, filled[1] - width, 0, filled[0] - height))
    query, key, value = layer.qkv(x[0]).unflatten(-1, (3, layer.heads, -1)).unbind(2)
    table = layer.bias_table.view(2 * WINDOW - 1, 2 * WINDOW - 1, layer.heads)

    def place(i: int, axis: int) -> tuple[int, bool]:
        """A token's window along an axis, and whether the roll has carried it around."""
        return (i - shift[axis]) % filled[axis] // window[axis], i < shift[axis]

    out = torch.zeros(*filled, x.shape[-1])
    tokens = [(i, j) for i in range(filled[0]) for j in range(filled[1])]
    for i, j in tokens:
        mine = (place(i, 0), place(j, 1))
        seen = [(a, b) for a, b in tokens if (place(a, 0), place(b, 1)) == mine]
        scores = torch.stack(
            [(query[i, j] * key[a, b]).sum(-1) * query.shape[-1] ** -0.5 + table[i - a + 6, j - b + 6] for a, b in seen]
        )
        weights = scores.softmax(0)
        out[i, j] = sum(w[:, None] * value[a, b] for w, (a, b) in zip(weights, seen, strict=True)).flatten()
    return layer.project(out)[None, :height, :width]


@pytest.mark.parametrize("size", [(9, 14), (16, 5), (7, 8), (4, 3)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_against_their_definition(size: tuple[int, int], shifted: bool) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(2, 6, heads=3, shifted=shifted)
    torch.nn.init.normal_(layer.bias_table)
    x = torch.randn(1, *size, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), attention_token_by_token(layer, x), atol=1e-5, rtol=1e-4)


def test_training_and_evaluation_compute_the_same() -> None:
    torch.manual_seed(0)
    layer = WindowAttention(3, 12, heads=3, shifted=True)
    x = torch.randn(2, 9, 8, 5, 12)
    trained = layer(x)  # with gradients, PyTorch's plain operations on the CPU
    with torch.no_grad():
        torch.testing.assert_close(layer(x), trained, atol=1e-5, rtol=1e-4)


def test_merging_takes_the_neighbours_and_fills_odd_sizes() -> None:
    merging = PatchMerging(2, 1)
    x = torch.arange(1.0, 7.0).view(1, 2, 3, 1)  # rows 1 2 3 and 4 5 6
    seen: list[Tensor] = []
    merging.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert merging(x).shape == (1, 1, 2, 2)
    assert seen[0][0, 0, 0].tolist() == [1, 4, 2, 5]
    assert seen[0][0, 0, 1].tolist() == [3, 6, 0, 0]


def test_nothing_depends_on_the_unused_stage() -> None:
    with_stage = small_network("swin_unetr", 3, keep_unused_stage=True)
    without = small_network("swin_unetr", 3)
    missing = without.load_state_dict(with_stage.state_dict(), strict=False)
    assert not missing.missing_keys
    assert all(name.startswith("stages.3.") for name in missing.unexpected_keys)
    image = torch.randn(1, 2, 32, 32, 32)
    both = zip(without.forward_with_attention(image), with_stage.forward_with_attention(image), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in both)
    with_stage(image).square().mean().backward()
    dead = {name for name, parameter in with_stage.named_parameters() if parameter.grad is None}
    assert dead == {name for name, _ in with_stage.named_parameters() if name.startswith("stages.3.")}


def test_relative_positions_start_small() -> None:
    table = small_network("swin_unetr", 3).stages[2].layers[0].attention.bias_table
    assert 0.018 < table.std() < 0.022
