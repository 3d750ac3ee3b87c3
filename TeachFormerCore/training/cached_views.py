"""Cached views as Lightning reads them: one of a case's, with the teachers' maps, in one of its exact symmetries."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from ..data.augmentation import case_random
from ..data.symmetries import grid_symmetries
from ..distillation.teacher import TeacherMaps
from .entries import Entries
from .teacher_cache import entry_name
from .views import Index, View, Views

CHOICE_STREAM = 1  # beside the draw of a view


class CachedViews(Dataset[View]):
    """``views[epoch, case]``: a cached view in one of the patch's symmetries, both drawn from (seed, epoch, case).

    Image, label and maps move alike. A teacher's answer to the moved image would differ a little from its moved answer;
    that, and the finite number of views, is what caching costs. Turns by 90 degrees are more than the augmentation's
    own rotations; without them flips are left, and those only where the augmentation flips.

    Args:
        views: whose draws were cached; the channels that the student sees are drawn anew in every epoch.
        folders: of the views, then of each teacher's maps, filled.
        count: views per case.
        quarter_turns: turns by 90 degrees too, in planes of equal sizes and spacings.
    """

    def __init__(self, views: Views, folders: Sequence[Entries], *, count: int, quarter_turns: bool) -> None:
        self.views = views
        self.folders = folders
        self.count = count
        self.seed = views.seed
        self.symmetries = grid_symmetries(
            views.patch_size, views.spacing, flips=views.augmentation.flip > 0, quarter_turns=quarter_turns
        )

    def __getitem__(self, index: Index) -> View:
        epoch, case = index
        choice = case_random(self.seed, epoch, case, CHOICE_STREAM)
        name = entry_name(case, int(choice.integers(self.count)))
        move = self.symmetries[int(choice.integers(len(self.symmetries)))]
        view, *answers = ({key: move(value) for key, value in each.read(name).items()} for each in self.folders)
        kept = torch.tensor(self.views.draw(epoch, case).kept)
        return View(view["image"].float(), view["label"], tuple(TeacherMaps(**maps) for maps in answers), kept)
