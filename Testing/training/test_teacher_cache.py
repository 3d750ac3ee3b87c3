"""Cached teachers: what is kept is what they say, shared where it is the same, made anew where it is damaged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from TeachFormerCore.data.augmentation import AugmentationConfig
from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.distillation.attention_similarity import AttentionSimilarity
from TeachFormerCore.distillation.teacher import Teacher, TeacherMaps
from TeachFormerCore.errors import InputError, TeachFormerError
from TeachFormerCore.networks import SegmentationNetwork, build_network
from TeachFormerCore.training import teacher_cache
from TeachFormerCore.training.cached_views import CachedViews
from TeachFormerCore.training.config import DistillationConfig
from TeachFormerCore.training.teacher_cache import TeacherCache
from TeachFormerCore.training.views import View, Views, view_loader

CASES = ("P0", "P1", "P2")
SETTINGS = DistillationConfig(teacher_outputs="cached", cached_views=2, mode="attention")


class Pointwise(SegmentationNetwork):
    """Maps that are functions of each voxel, so that they commute with every symmetry; counts its calls."""

    calls = 0

    def __init__(self, *, factor: float = 1.0, channels: int = 3) -> None:
        super().__init__(in_channels=2, out_channels=2, spatial_dims=3, image_size=(32, 32, 32))
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.channels = channels

    def maps(self, image: torch.Tensor, *, training_terms: bool = False) -> dict[str, torch.Tensor]:
        self.calls += 1
        fine = torch.cat([self.factor * (image[:, :1] + k * image[:, 1:]) for k in range(self.channels)], 1)
        coarse = torch.nn.functional.avg_pool3d(fine, 16)
        return {"logits": self.factor * image, "coarse": coarse, "fine": fine}


@pytest.fixture
def views(prepared_folder: Path) -> Views:
    return Views(open_prepared(prepared_folder), patch_size=(32, 32, 32), augmentation=AugmentationConfig(), seed=0)


def cache(views: Views, root: Path, *teachers: Teacher, **changes: Any) -> TeacherCache:
    options = {"views": views, "cases": CASES, "student": Pointwise(channels=2), "settings": SETTINGS, "bf16": False}
    options["identities"] = [{"weights_sha256": teacher.name} for teacher in teachers]
    return TeacherCache(root, teachers=teachers, **(options | changes))  # type: ignore[arg-type]


def teacher(name: str = "t", **changes: Any) -> Teacher:
    return Teacher(name=name, network=Pointwise(**changes))


def test_every_view_and_map_is_what_the_teacher_sees_and_says(views: Views, tmp_path: Path) -> None:
    one, other = teacher("one"), replace(teacher("other", factor=2.0, channels=5), temperature=4.0)
    made = cache(views, tmp_path, one, other)
    made.fill()
    similarity = AttentionSimilarity(mode="attention")
    for case in CASES:
        for number in range(2):
            view = views[number, case]
            image, *answers = (entries.read(f"{case}_{number}") for entries in made.folders)
            assert torch.equal(image["label"], view.label)
            torch.testing.assert_close(image["image"].float(), view.image, rtol=1e-3, atol=1e-4)
            for source, kept in zip((one, other), answers, strict=True):
                assert {value.dtype for value in kept.values()} == {torch.float16}
                said = source.maps(image["image"].float()[None])
                torch.testing.assert_close(kept["logits"].float(), said.logits[0], rtol=1e-3, atol=1e-4)
                online, cached = (
                    similarity(torch.rand(1, 3, 32, 32, 32, generator=torch.Generator().manual_seed(0)), fine)
                    for fine in (said.fine, kept["fine"][None])
                )
                torch.testing.assert_close(online, cached, rtol=1e-3, atol=0)
                assert kept["coarse"].shape == (1, 2, 2, 2)
    files = [entries.file(f"{case}_{n}") for entries in made.folders for case in CASES for n in range(2)]
    on_disk = sum(file.stat().st_size for file in files)
    assert made.bytes < on_disk < made.bytes + 1000 * len(files)  # the files' headers are not counted
    assert made.record()["bytes"] == made.bytes


def test_nothing_is_computed_twice(views: Views, tmp_path: Path) -> None:
    one = teacher("one")
    cache(views, tmp_path, one).fill()
    calls = one.network.calls
    again = cache(views, tmp_path, one, cases=("P1", "P2"))
    again.fill()
    assert one.network.calls == calls + 1  # its size was asked for
    two = teacher("two", factor=3.0)
    both = cache(views, tmp_path, one, two)
    both.fill()
    assert (one.network.calls, two.network.calls) == (calls + 2, 1 + len(CASES) * 2)
    assert [each.folder for each in both.folders[:2]] == [each.folder for each in again.folders]


def test_the_key_holds_what_the_maps_depend_on(views: Views, tmp_path: Path) -> None:
    one = teacher("one")
    plain = cache(views, tmp_path, one)

    def folders(**changes: Any) -> list[bool]:
        """Whether the folder of the views and that of the maps stay the same."""
        found = cache(changes.pop("views", views), tmp_path, changes.pop("teacher", one), **changes)
        return [a.folder == b.folder for a, b in zip(plain.folders, found.folders, strict=True)]

    assert folders() == [True, True]
    assert folders(identities=[{"weights_sha256": "changed"}]) == [True, False]
    assert folders(teacher=replace(one, temperature=2.0)) == [True, False]
    assert folders(bf16=True) == [True, False]
    assert folders(settings=replace(SETTINGS, mode="projected")) == [True, False]
    assert folders(settings=replace(SETTINGS, mode="balanced", cached_views=3)) == [True, True]
    assert folders(student=Pointwise(channels=4)) == [True, True]
    paper = replace(SETTINGS, mode="paper")
    narrow, wide = (cache(views, tmp_path, one, settings=paper, student=Pointwise(channels=c)) for c in (2, 4))
    assert narrow.folders[1].folder != wide.folders[1].folder
    for changed in ({"seed": 1}, {"patch_size": (32, 32, 48)}, {"augmentation": AugmentationConfig(scale=0.1)}):
        options = {"patch_size": (32, 32, 32), "augmentation": AugmentationConfig(), "seed": 0} | changed
        assert folders(views=Views(views.prepared, **options)) == [False, False]
    dropout = AugmentationConfig(channel_dropout=0.5)
    assert folders(views=Views(views.prepared, patch_size=(32,) * 3, augmentation=dropout, seed=0)) == [True, True]
    case = views.prepared.folder / "P5.safetensors"
    case.write_bytes((views.prepared.folder / "P6.safetensors").read_bytes())
    assert folders() == [False, False]


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_entry_is_made_anew_and_the_others_stay(views: Views, tmp_path: Path, which: int) -> None:
    one = teacher("one")
    made = cache(views, tmp_path, one)
    made.fill()
    file = made.folders[which].file("P1_1")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    calls = one.network.calls
    made.fill()
    assert file.read_bytes() == whole
    assert one.network.calls == calls + which


def test_a_limit_is_checked_before_anything_is_written(views: Views, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(InputError, match=r"needs 0\.00 GB \(3 cases x 2 views x .* MB\), more than .*1e-06: raise"):
        cache(views, tmp_path, teacher(), settings=replace(SETTINGS, cache_gigabytes=1e-6))
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"the disk of .* has 0\.00 GB left: free some space"):
        cache(views, tmp_path / "absent" / "deeper", teacher())
    assert not list(tmp_path.glob("views-*"))


def test_logits_that_do_not_fit_are_refused(views: Views, tmp_path: Path) -> None:
    with pytest.raises(TeachFormerError, match=r"logits of the teacher t .*online"):
        cache(views, tmp_path, teacher(factor=1e6)).fill()


@pytest.mark.parametrize(
    ("flip", "turns", "count"), [(0.5, True, 48), (0.5, False, 8), (0.0, True, 24), (0.0, False, 1)]
)
def test_image_label_and_maps_move_together(
    prepared_folder: Path, tmp_path: Path, flip: float, turns: bool, count: int
) -> None:
    """The teacher is a function of each voxel: its answer to the moved image is its moved answer, exactly."""
    augmentation = AugmentationConfig(flip=flip, channel_dropout=0.5)
    views = Views(open_prepared(prepared_folder), patch_size=(32,) * 3, augmentation=augmentation, seed=0)
    one = teacher("one")
    made = cache(views, tmp_path, one)
    made.fill()
    cached = CachedViews(views, made.folders, count=2, quarter_turns=turns)
    assert len(cached.symmetries) == count
    seen = set()
    for epoch in range(20):
        view = cached[epoch, "P0"]
        said = one.maps(view.image[None])
        assert view.image.dtype == torch.float32
        torch.testing.assert_close(view.targets[0].logits.float(), said.logits[0], rtol=1e-3, atol=1e-4)
        fine = said.fine.abs().sum(1)
        torch.testing.assert_close(view.targets[0].fine.float(), fine / fine.max(), rtol=1e-3, atol=1e-4)
        coarse = said.coarse.abs().sum(1)
        torch.testing.assert_close(view.targets[0].coarse.float(), coarse / coarse.max(), rtol=2e-3, atol=1e-4)
        # The ball is bright: its voxels are labelled wherever they went.
        assert view.image[1][view.label == 1].mean() > 1 > view.image[1][view.label == 0].mean()
        assert tuple(view.kept.tolist()) == views.draw(epoch, "P0").kept
        again = cached[epoch, "P0"]
        assert all(torch.equal(a, b) for a, b in zip(view[:2], again[:2], strict=True))
        seen.add(view.image.numpy().tobytes())
    assert len(seen) > min(count, 10)


def test_batches_are_what_a_task_takes(views: Views, tmp_path: Path) -> None:
    made = cache(views, tmp_path, teacher("one"), teacher("two", factor=2.0))
    made.fill()
    options = {"batch_size": 2, "first_epoch": 0, "workers": 0, "pin_memory": False}
    for source, teachers in ((views, 0), (CachedViews(views, made.folders, count=2, quarter_turns=True), 2)):
        batch = next(iter(view_loader(source, CASES, **options)))  # type: ignore[arg-type]
        assert isinstance(batch, View)
        assert batch.image.shape == (2, 2, 32, 32, 32)
        assert batch.kept.tolist() == [[True, True], [True, True]]
        assert len(batch.targets) == teachers
        assert all(isinstance(maps, TeacherMaps) and maps.coarse.shape == (2, 1, 2, 2, 2) for maps in batch.targets)


def test_real_networks_of_two_kinds(views: Views, tmp_path: Path) -> None:
    """The paper's form keeps the student's channels of a teacher with more, in bfloat16 too."""
    torch.manual_seed(0)
    build = {"in_channels": 2, "out_channels": 2, "image_size": (32, 32, 32), "transformer_depth": 4}
    wide, student = (build_network("h_denseformer_light", filters=filters, **build) for filters in (4, 2))
    made = cache(
        views, tmp_path, Teacher(name="w", network=wide.eval()),
        cases=("P0",), student=student, settings=replace(SETTINGS, mode="paper"), bf16=True,
    )  # fmt: skip
    made.fill()
    maps = made.folders[1].read("P0_1")
    assert maps["coarse"].shape == (16, 2, 2, 2)
    assert maps["fine"].shape == (2, 32, 32, 32)
    assert maps["fine"].abs().max() == 1
