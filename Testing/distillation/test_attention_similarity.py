"""Eq. 1 in closed form: 0 on equal maps, blind to scale, by hand on small maps, gradient to the student only."""

import math

import pytest
import torch

from TeachFormerCore.distillation.attention_similarity import AttentionSimilarity, resample_channels

MODES = ("paper", "attention", "projected")


def maps(channels: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
def test_equal_maps_have_no_distance_and_scale_does_not_matter(mode: str) -> None:
    loss, x, y = AttentionSimilarity(mode=mode), maps(), maps(seed=1)
    assert loss(x, x).item() < 1e-6
    assert loss(x, 7.5 * x).item() < 1e-6
    torch.testing.assert_close(loss(x, y), loss(3 * x, 0.2 * y))


def test_paper_by_hand() -> None:
    """Student 1, 3 (over 4), teacher 2, -2 (over 4): differences -1/4 and 5/4; signs are kept."""
    student = torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1, 1)
    teacher = torch.tensor([2.0, -2.0]).reshape(1, 1, 2, 1, 1)
    expected = math.hypot(1 / 4 - 1 / 2, 3 / 4 + 1 / 2)
    assert AttentionSimilarity(mode="paper")(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_paper_norm_is_over_channels_and_space_of_a_sample() -> None:
    """Two samples: the mean of their own distances, each normalised by itself."""
    loss = AttentionSimilarity(mode="paper")
    x, y = maps(), maps(seed=1)
    single = [loss(x[i : i + 1], y[i : i + 1]).item() for i in range(2)]
    scaled = x * torch.tensor([1.0, 100.0]).reshape(2, 1, 1, 1, 1)
    assert loss(scaled, y).item() == pytest.approx(sum(single) / 2, rel=1e-5)


def test_attention_by_hand() -> None:
    """Channel sums (3, 4) and (4, 3), both of length 5: distance sqrt(2) / 5."""
    student = torch.tensor([[1.0, 4.0], [-2.0, 0.0]]).reshape(1, 2, 2, 1, 1)
    teacher = torch.tensor([4.0, -3.0]).reshape(1, 1, 2, 1, 1)
    assert AttentionSimilarity(mode="attention")(student, teacher).item() == pytest.approx(math.sqrt(2) / 5, rel=1e-6)


def test_projected_by_hand() -> None:
    """(3, 4) over two channels and (4, -3), both of length 5: signs and channels are kept, distance sqrt(2)."""
    student = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    teacher = torch.tensor([4.0, -3.0]).reshape(1, 2, 1, 1)
    loss = AttentionSimilarity(mode="projected")
    assert loss(student, teacher).item() == pytest.approx(math.sqrt(2), rel=1e-6)
    assert loss(student, -student).item() == pytest.approx(2, rel=1e-6)


def test_balanced_is_the_name_of_a_preset() -> None:
    x, y = maps(), maps(4, seed=1)
    assert torch.equal(AttentionSimilarity(mode="balanced")(x, y), AttentionSimilarity(mode="attention")(x, y))


def test_only_papers_form_shrinks_with_size() -> None:
    def at(size: int, mode: str) -> float:
        generator = torch.Generator().manual_seed(2)
        pair = torch.randn(2, 1, 4, size, size, size, generator=generator)
        return AttentionSimilarity(mode=mode)(pair[0], pair[1]).item()

    for mode in ("attention", "projected"):
        assert at(16, mode) == pytest.approx(at(8, mode), rel=0.1)
    assert at(16, "paper") == pytest.approx(at(8, "paper") / math.sqrt(8), rel=0.05)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [3, 6, 11])
def test_gradient_goes_to_the_student_and_is_finite(mode: str, channels: int) -> None:
    student, teacher = maps(channels if mode == "projected" else 6).requires_grad_(), maps(channels, seed=1)
    AttentionSimilarity(mode=mode)(student, teacher).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0
    equal = maps().requires_grad_()
    AttentionSimilarity(mode=mode)(equal, equal.detach()).backward()
    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all()


def test_channels_are_resampled_linearly() -> None:
    """Half-pixel centres, as PyTorch's linear mode: 4 -> 2 takes the means of neighbours, a ramp stays a ramp."""
    x = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(1, 4, 2, 2, 2)
    torch.testing.assert_close(resample_channels(x, 2)[0, :, 0, 0, 0], torch.tensor([0.5, 2.5]))
    torch.testing.assert_close(resample_channels(x, 8)[0, 1:7, 0, 0, 0], torch.arange(6) * 0.5 + 0.25)
    assert resample_channels(x, 4) is x


@pytest.mark.parametrize("mode", MODES)
def test_float32_inside_autocast(mode: str) -> None:
    """Entries of 4e-8 have squares that half precision cannot hold; bfloat16 maps are taken as they are."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 1, 8, 24, 24, 24, generator=generator).bfloat16()
    loss = AttentionSimilarity(mode=mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(x, y)
        assert loss.target(y, 4).dtype == torch.float32
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(x.float(), y.float()))


@pytest.mark.parametrize("mode", MODES)
def test_a_term_of_a_map_is_the_term_of_its_target(mode: str) -> None:
    """So that a cache may keep the target alone, to the last bit."""
    loss, student = AttentionSimilarity(mode=mode), maps()
    teacher = maps(6 if mode == "projected" else 11, seed=1)
    target = loss.target(teacher, 6)
    assert target.shape[1] == {"paper": 6, "attention": 1, "projected": 6}[mode]
    assert torch.equal(loss(student, target), loss(student, teacher))
    assert torch.equal(loss.target(target, 6), target)


def test_stored_numbers() -> None:
    """Computed once in float64 with numpy from the equation, not with this code."""
    x, y = maps(), maps(seed=1)
    for mode, stored in STORED.items():
        assert AttentionSimilarity(mode=mode)(x, y).item() == pytest.approx(stored, rel=1e-5)


STORED = {"paper": 0.06697416186, "attention": 0.4350724667, "projected": 1.4264171305}


def test_attention_is_zagoruykos_transfer() -> None:
    """Eq. 2 of Zagoruyko and Komodakis 2017, F_sum and p = 2: the sum over maps of the distance of the unit vectors,
    times beta / 2, which is the terms' weight here. By hand, sample by sample."""
    x, y = maps().double(), maps(9, seed=1).double()
    expected = 0.0
    for ours, theirs in zip(x, y, strict=True):
        ours, theirs = ours.abs().sum(0).flatten(), theirs.abs().sum(0).flatten()
        expected += (ours / ours.norm() - theirs / theirs.norm()).norm().item() / 2
    assert AttentionSimilarity(mode="attention")(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_wrong_shapes_and_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="same batch and spatial sizes"):
        AttentionSimilarity(mode="paper")(maps(), maps()[..., :5])
    with pytest.raises(ValueError, match="one of paper, attention, projected, balanced, not 'both'"):
        AttentionSimilarity(mode="both")
    with pytest.raises(ValueError, match="project the student's map first"):
        AttentionSimilarity(mode="projected")(maps(), maps(4))
