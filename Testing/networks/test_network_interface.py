"""What every network promises: its maps for any image, any number of channels, gradients everywhere, exportable."""

import warnings
from typing import Any

import pytest
import torch
from small_networks import ALL, KINDS, SMALL_ARGUMENTS, STUDENTS_3D, small_network
from torch import Tensor, nn
from torch.nn import functional as F

from TeachFormerCore.networks import NETWORKS, build_network
from TeachFormerCore.networks.base import resample_positions
from TeachFormerCore.networks.layers import CONVOLUTION

ANISOTROPIC = {3: (24, 40, 36), 2: (24, 40)}


def image_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_maps_have_the_same_sizes_for_all_networks(name: str, dims: int) -> None:
    network = small_network(name, dims).eval()
    size = ANISOTROPIC[dims]
    with torch.no_grad():
        logits, coarse, fine = network.forward_with_attention(image_of(2, 2, *size))
        alone = network(image_of(2, 2, *size))
    assert logits.shape == (2, 2, *size)
    assert fine.shape[2:] == size
    assert coarse.shape[2:] == tuple(-(-n // 16) for n in size)
    assert coarse.std() > 0
    assert fine.std() > 0
    assert torch.equal(alone, logits)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_padding_is_background_at_the_far_ends(name: str, dims: int) -> None:
    network = small_network(name, dims).eval()
    image = image_of(1, 2, *ANISOTROPIC[dims])
    whole = tuple(-(-n // network.size_divisor) * network.size_divisor for n in ANISOTROPIC[dims])
    padding = [extra for n, p in zip(reversed(image.shape[2:]), reversed(whole), strict=True) for extra in (0, p - n)]
    with torch.no_grad():
        padded = network.maps(F.pad(image, padding))
        logits, coarse, fine = network.forward_with_attention(image)
    inside = (..., *(slice(0, n) for n in image.shape[2:]))
    assert torch.equal(logits, padded["logits"][inside])
    assert torch.equal(fine, padded["fine"][inside])
    assert torch.equal(coarse, padded["coarse"][(..., *(slice(0, n) for n in coarse.shape[2:]))])


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_the_smallest_images_can_be_trained_on(name: str, dims: int) -> None:
    network = small_network(name, dims).train()
    for size in ((16,) * dims, (1,) * dims):
        logits, coarse, fine = network.forward_with_attention(image_of(1, 2, *size))
        assert logits.shape == (1, 2, *size)
        assert coarse.shape[2:] == (1,) * dims
        assert fine.shape[2:] == size
        assert logits.isfinite().all()


@pytest.mark.parametrize("in_channels", [1, 8])
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_any_number_of_channels_and_classes(name: str, dims: int, in_channels: int) -> None:
    network = build_network(
        name,
        in_channels=in_channels,
        out_channels=5,
        spatial_dims=dims,
        image_size=(32,) * dims,
        **SMALL_ARGUMENTS[name],
    ).eval()
    with torch.no_grad():
        assert network(image_of(1, in_channels, *(32,) * dims)).shape == (1, 5, *(32,) * dims)
    with pytest.raises(ValueError, match=f"takes \\(batch, {in_channels}, "):
        network(image_of(1, in_channels + 1, *(32,) * dims))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_every_parameter_receives_a_gradient_in_the_default_build(name: str, dims: int) -> None:
    torch.manual_seed(0)
    size = {3: 32, 2: 64}[dims]
    network = build_network(name, in_channels=2, out_channels=2, spatial_dims=dims, image_size=(size,) * dims)
    network(image_of(2, 2, *(size,) * dims)).square().mean().backward()
    without = [label for label, parameter in network.named_parameters() if parameter.grad is None]
    zero = [label for label, parameter in network.named_parameters() if not parameter.grad.any()]
    assert not without
    assert not zero


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_bfloat16_gives_finite_gradients(name: str, dims: int) -> None:
    torch.manual_seed(0)
    network = small_network(name, dims)
    size = {3: 32, 2: 64}[dims]
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.training_forward(image_of(2, 2, *(size,) * dims))
    assert maps["logits"].dtype == torch.bfloat16
    sum(maps[name].float().square().mean() for name in ("logits", "coarse", "fine")).backward()
    for label, parameter in network.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.any(), label


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_bfloat16_gradients_are_right_for_any_number_of_slices(slices: int) -> None:
    torch.manual_seed(0)
    convolution = CONVOLUTION[3](16, 16, 3, padding=1)
    image = image_of(2, 16, slices, 6, 6).bfloat16()
    expected = torch.autograd.grad(convolution(image.float()).square().sum(), convolution.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = convolution(image).float().square().sum()
    found = torch.autograd.grad(loss, convolution.weight)[0]
    assert (found - expected).norm() < 0.01 * expected.norm()


class ThreeMaps(nn.Module):
    """What an exported graph returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.forward_with_attention(image)


@pytest.mark.parametrize("name", STUDENTS_3D)
def test_students_can_be_exported(name: str) -> None:
    network = small_network(name, 3).eval()
    image = image_of(1, 2, 24, 32, 32)
    exported = torch.export.export(ThreeMaps(network), (image,)).module()
    check_same_maps(exported, network, image_of(1, 2, 24, 32, 32, seed=1))


@pytest.mark.parametrize(("name", "dims"), [entry for entry in KINDS if entry[0] not in STUDENTS_3D or entry[1] == 2])
def test_the_others_can_be_traced(name: str, dims: int) -> None:
    network = small_network(name, dims).eval()
    image = image_of(1, 2, *(24, 32, 32)[:dims])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # sizes are constants of a trace, as meant
        traced = torch.jit.trace(ThreeMaps(network), (image,), check_trace=False)
    check_same_maps(traced, network, image_of(1, 2, *(24, 32, 32)[:dims], seed=1))


def check_same_maps(exported: Any, network: Any, image: Tensor) -> None:
    with torch.no_grad():
        for ours, theirs in zip(network.forward_with_attention(image), exported(image), strict=True):
            torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("name", ["unetr", "missu", "h_denseformer"])
def test_positions_are_resampled_to_other_image_sizes(name: str) -> None:
    network = small_network(name, 3, size=32).eval()
    larger = small_network(name, 3, size=48).eval()
    state = network.state_dict()
    for label, value in state.items():
        if label.endswith("positions"):
            value.normal_(generator=torch.Generator().manual_seed(0))
            edge = round(value.shape[1] ** (1 / 3))
            state[label] = resample_positions(value, (edge,) * 3, (edge * 3 // 2,) * 3)
    larger.load_state_dict(state)
    image = image_of(1, 2, 48, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(network(image), larger(image))


def test_resampled_positions_by_hand() -> None:
    ramp = torch.arange(4.0).view(4, 1).expand(4, 2).reshape(1, 8, 1)  # a grid of 4 x 2 tokens
    wider = resample_positions(ramp, (4, 2), (8, 2)).view(8, 2)
    assert torch.allclose(wider[:, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))
    assert torch.equal(wider[:, 0], wider[:, 1])
    assert resample_positions(ramp, (4, 2), (4, 2)) is ramp


@pytest.mark.parametrize(
    ("name", "arguments", "training_only"),
    [
        ("h_denseformer_light", {"deep_supervision": True}, "auxiliary_heads"),
        ("swin_unetr_light", {"keep_unused_stage": True}, "stages.3"),
        ("missu", {"fusion": "local"}, "fusion"),
        ("mdvit", {"auxiliary_branches": True}, "auxiliary"),
        ("ux_net", {}, None),
        ("missu", {"fusion": "output"}, None),
    ],
)
def test_the_inference_form_has_no_training_only_parts(name: str, arguments: Any, training_only: str | None) -> None:
    dims = max(NETWORKS[name].arguments)
    network = small_network(name, dims, **arguments).eval()
    leaving_out, weights = network.inference_form()
    lean = small_network(name, dims, **(arguments | leaving_out)).eval()
    lean.load_state_dict(weights, strict=True)
    assert (len(weights) < len(network.state_dict())) == (training_only is not None)
    assert not any(label.startswith(f"{training_only}.") for label in weights)
    image = image_of(1, 2, *(32,) * dims)
    with torch.no_grad():
        assert torch.equal(lean(image), network(image))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("u_net", {}, "There is no network 'u_net': choose one of h_denseformer, "),
        ("missu", {"spatial_dims": 2}, "'missu' exists in 3D only, not in 2D"),
        ("mdvit", {"spatial_dims": 3}, "'mdvit' exists in 2D only, not in 3D"),
        ("unetr", {"spatial_dims": 4}, "exists in 3D and 2D only, not in 4D"),
        ("unetr", {"image_size": (64, 64)}, "must have 3 numbers"),
        ("ux_net", {"filters": 3}, "does not take these arguments"),
        ("ux_net", {"out_channels": 1}, "2 classes"),
        ("ux_net", {"widths": (1, 2, 3)}, "widths must be four numbers"),
        ("swin_unetr", {"features": 8}, "features must be a multiple of 3, not 8"),
        ("unetr", {"skip_layers": (4, 7, 13)}, "skip_layers must be three rising numbers of 1 to 12"),
        ("unetr", {"heads": 7}, "768 cannot be split into 7 heads"),
        ("missu", {"fusion": "global"}, "fusion must be 'local', 'output' or None, not 'global'"),
        ("missu", {"preset": "large"}, "preset must be one of teachformer, paper, not 'large'"),
        ("missu", {"filters": 12}, "filters must be a multiple of 8, not 12"),
        ("h_denseformer", {"transformer_depth": 6}, "must be a multiple of 4, not 6"),
        ("h_denseformer", {"coarse_tap": "l4"}, "coarse_tap must be 'pooled' or 'mpe', not 'l4'"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        build_network(name, **({"in_channels": 2, "out_channels": 2} | arguments))


def test_a_volume_for_a_2d_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"UXNet takes \(batch, 2, \*2 sizes\), not \(1, 2, 32, 32, 32\)"):
        small_network("ux_net", 2)(torch.zeros(1, 2, 32, 32, 32))
