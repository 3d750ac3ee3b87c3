"""Which volume is which channel of the model: by the words of its name, its DICOM modality and series description."""

import re
from dataclasses import dataclass

from slicer.i18n import tr as _

WORDS = {
    "CT": ("ct", "cect", "ldct", "hu"),
    "PET": ("pet", "pt", "suv", "fdg", "suvbw"),
    "MR": ("mr", "mri", "t1", "t1w", "t1ce", "t1c", "t1gd", "t2", "t2w", "flair", "dwi", "adc", "swi", "dce"),
}
DICOM_CODES = {"CT": "CT", "PET": "PT", "MR": "MR"}
# How much a hit counts: a channel's own name more than a modality, what DICOM says more than a chosen name.
OWN_NAME, MODALITY_TAG, MODALITY_WORD, DESCRIPTION_WORD, CONTRADICTED = 8, 4, 2, 1, -16


@dataclass(frozen=True)
class Volume:
    """What is known of a volume node; ``modality`` and ``description`` are DICOM's, empty where it has none."""

    id: str
    name: str
    modality: str = ""
    description: str = ""


@dataclass(frozen=True)
class Match:
    """The volume for a channel (None where none fits) and the reason, for the user."""

    volumeId: object
    reason: str


def words_of(text):
    """``PET_FDG-AC (SUV)`` -> pet, fdg, ac, suv."""
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]


def assign(channels, volumes, taken=()):
    """A `Match` per channel, each volume at most once; the surest match is made first.

    Args:
        channels: ``(name, modality)`` each, in the model's order.
        volumes: `Volume` each.
        taken: ids of volumes that are not to be used.
    """
    free = [volume for volume in volumes if volume.id not in taken]
    ranked = []
    for place, (name, modality) in enumerate(channels):
        for order, volume in enumerate(free):
            score, reason = _score(name, modality, volume)
            if score > 0:
                ranked.append((-score, place, order, volume.id, reason))
    matches = {}
    used = set()
    for _minus, place, _order, volumeId, reason in sorted(ranked):
        if place not in matches and volumeId not in used:
            matches[place] = Match(volumeId, reason)
            used.add(volumeId)
    nothing = Match(None, "")
    return [matches.get(place, nothing) for place in range(len(channels))]


def _score(name, modality, volume):
    words, described = words_of(volume.name), words_of(volume.description)
    score, reasons = 0, []
    if set(words_of(name)) <= set(words) or set(words_of(name)) <= set(described):
        score += OWN_NAME
        where = words if set(words_of(name)) <= set(words) else described
        reasons.append(_reason(where is words, name))
    if volume.modality:
        if volume.modality == DICOM_CODES[modality]:
            score += MODALITY_TAG
            reasons.append(_("DICOM modality is {code}").format(code=volume.modality))
        elif volume.modality in DICOM_CODES.values():
            return CONTRADICTED, ""
    for found, weight, isName in ((words, MODALITY_WORD, True), (described, DESCRIPTION_WORD, False)):
        hit = next((word for word in found if word in WORDS[modality]), None)
        if hit:
            score += weight
            reasons.append(_reason(isName, hit))
    return score, reasons[0] if reasons else ""


def _reason(isName, word):
    word = word.lower()
    if isName:
        return _("name contains '{word}'").format(word=word)
    return _("series description contains '{word}'").format(word=word)
