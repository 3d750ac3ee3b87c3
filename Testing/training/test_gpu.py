"""What must hold on a CUDA GPU: make test-gpu. Skipped, with the reason, where there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from TeachFormerCore.data.augmentation import AugmentationConfig
from TeachFormerCore.data.image import voxels
from TeachFormerCore.data.phantom import thigh_phantom
from TeachFormerCore.devices import choose_device
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.task import SegmentationTask
from TeachFormerCore.inference.predictor import Predictor
from TeachFormerCore.networks import build_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(
        "h_denseformer_light", in_channels=2, out_channels=2, image_size=(32,) * 3, filters=4, transformer_depth=4
    )


def test_auto_takes_the_gpu() -> None:
    assert choose_device("auto").type == "cuda"


def test_a_training_step_gives_the_cpus_loss_and_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 2, 32, 32, 32, generator=generator)
    label = (torch.rand(2, 32, 32, 32, generator=generator) > 0.8).to(torch.uint8)
    gradients, losses = [], []
    for device in ("cpu", "cuda"):
        network = tiny().eval().to(device)  # eval: dropout draws differ between devices
        terms = SegmentationTask(student=network, loss=SegmentationLoss())(image.to(device), label.to(device))
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert cosine > 0.999


def test_autocast_and_compile_keep_the_loss() -> None:
    image = torch.randn(2, 2, 32, 32, 32, device="cuda")
    label = torch.randint(0, 2, (2, 32, 32, 32), device="cuda")
    network = tiny().cuda().eval()
    plain = SegmentationLoss()(network(image), label)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        half = SegmentationLoss()(network(image), label)
    network.maps = torch.compile(network.maps)
    compiled = SegmentationLoss()(network(image), label)
    for name, value in plain.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.02)
        assert compiled[name].item() == pytest.approx(value.item(), rel=1e-2)


def test_the_predictor_agrees_with_the_cpu(tiny_model: Path) -> None:
    images = {name: image[10:60, 10:60, 10:50] for name, image in thigh_phantom().images.items()}
    cpu = Predictor(tiny_model, device="cpu").run(images)
    gpu = Predictor(tiny_model, device="cuda").run(images)
    a, b = voxels(cpu.label) > 0, voxels(gpu.label) > 0
    assert 2 * (a & b).sum() / max(1, a.sum() + b.sum()) > 0.99 or not (a.any() or b.any())
    assert np.abs(voxels(cpu.probabilities[1]) - voxels(gpu.probabilities[1])).max() < 0.05


def test_a_whole_training_runs_on_the_gpu(config: Callable) -> None:
    from TeachFormerCore.training.train import train

    folder = train(replace(config(max_steps=4, workers=2), device="cuda", augmentation=AugmentationConfig()))
    assert (folder / "per_case.csv").exists()
