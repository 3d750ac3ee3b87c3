"""Grad-CAM against its closed form, on networks whose gradients are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from TeachFormerCore.errors import MissingDependencyError
from TeachFormerCore.inference.grad_cam import grad_cam, labels_score
from TeachFormerCore.inference.outputs import Outputs

# What a label's logit takes of the two channels of the last layer; the background's is 0.
HEAD = torch.tensor([[0.0, 0.0], [2.0, -1.0]])


class Linear(torch.nn.Module):
    """The last layer is the image itself, the logits its products with ``HEAD``."""

    def forward_with_attention(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fine = image * 1.0
        return torch.einsum("kc,bc...->bk...", HEAD.to(image), fine), image[:, :, :1, :1, :1], fine


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("TeachFormerCore.inference.model_folder.load_network", lambda folder, card: Linear())


def test_of_a_linear_head_it_is_the_positive_part_of_the_logit(linear: None) -> None:
    """The gradient of each labelled voxel is the head's row, so the weights are that row times their number."""
    image = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    logit = 2 * image[0] - image[1]
    found = grad_cam(Path(), {"image_size": [4, 5, 6]}, image)
    np.testing.assert_allclose(found, np.clip(logit, 0, None) * (logit > 0).sum(), rtol=1e-4, atol=1e-3)


def test_the_weights_are_those_of_the_whole_image(linear: None) -> None:
    """In windows as in one piece: a window without any label is weighted like the others."""
    image = np.zeros((2, 4, 4, 32), np.float32)
    image[0, :, :, :5] = 1.0
    whole = grad_cam(Path(), {"image_size": [4, 4, 32]}, image)
    windows = grad_cam(Path(), {"image_size": [4, 4, 8]}, image)
    assert whole[:, :, :5].min() > 0
    np.testing.assert_allclose(windows / windows.max(), whole / whole.max(), atol=1e-5)


def test_without_a_label_it_is_zero(linear: None) -> None:
    image = np.zeros((2, 4, 4, 4), np.float32)
    image[1] = 1.0
    assert not grad_cam(Path(), {"image_size": [4, 4, 4]}, image).any()


def test_slices_of_a_2d_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flat(Linear):
        def forward_with_attention(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            assert image.dim() == 4
            fine = image * 1.0
            return torch.einsum("kc,bc...->bk...", HEAD, fine), image[:, :, :1, :1], fine

    monkeypatch.setattr("TeachFormerCore.inference.model_folder.load_network", lambda folder, card: Flat())
    image = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    logit = np.clip(2 * image[0] - image[1], 0, None)
    found = grad_cam(Path(), {"image_size": [8, 8]}, image)
    np.testing.assert_allclose(found / found.max(), logit / logit.max(), atol=1e-5)


def test_the_score_is_the_margin_over_the_background() -> None:
    logits = torch.tensor([[[1.0, 0.0, 5.0], [3.0, -1.0, 6.0], [2.0, -2.0, 9.0]]])  # three voxels of three classes
    assert float(labels_score(logits)) == pytest.approx((3 - 1) + 0 + (9 - 5))
    assert float(labels_score(logits + 100)) == pytest.approx(6)


def test_without_pytorch_it_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    outputs = Outputs(label=tmp_path / "m.nii.gz", attention_gradcam=tmp_path / "g.nii.gz")
    with pytest.raises(MissingDependencyError, match="'torch' is not installed.*Grad-CAM"):
        outputs.check([])
