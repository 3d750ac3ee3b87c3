"""The task: named, weighted terms, deep supervision included."""

import pytest
import torch

from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.task import SegmentationTask
from TeachFormerCore.networks.base import SegmentationNetwork


class FakeNetwork(SegmentationNetwork):
    """Answers with fixed logits, and with one auxiliary head at half the size."""

    def __init__(self, *, auxiliary: bool) -> None:
        super().__init__(in_channels=1, out_channels=2, spatial_dims=3, image_size=(16, 16, 16))
        self.bias = torch.nn.Parameter(torch.tensor(0.3))
        self.auxiliary = auxiliary

    def maps(self, image: torch.Tensor, *, training_terms: bool = False) -> dict:
        logits = torch.cat([image * self.bias, -image], 1)
        maps = {"logits": logits, "coarse": image, "fine": image}
        if self.auxiliary:
            maps["auxiliary"] = [(logits[..., ::2, ::2, ::2], 0.5)]
        return maps


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, 16, 16, 16, generator=generator)
    return image, (image[:, 0] > 1).to(torch.uint8)


def test_terms_are_weighted_by_name(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = FakeNetwork(auxiliary=False)
    plain = SegmentationTask(student=network, loss=SegmentationLoss())(*batch)
    weighted = SegmentationTask(student=network, loss=SegmentationLoss(), weights={"focal": 3.0})(*batch)
    assert set(plain) == {"dice", "focal"}
    torch.testing.assert_close(weighted["focal"], 3 * plain["focal"])
    torch.testing.assert_close(weighted["dice"], plain["dice"])


def test_auxiliary_heads_add_their_share(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, label = batch
    loss = SegmentationLoss()
    network = FakeNetwork(auxiliary=True)
    both = SegmentationTask(student=network, loss=loss)(image, label)
    logits = network(image)
    full, half = loss(logits, label), loss(logits[..., ::2, ::2, ::2], label[..., ::2, ::2, ::2])
    for name, term in both.items():
        torch.testing.assert_close(term, full[name] + 0.5 * half[name])
