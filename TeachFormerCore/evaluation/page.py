"""One self-contained HTML page of results: pictures, measures and the model's card; it opens with no network."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import missing_dependency

if TYPE_CHECKING:
    import jinja2

UNITS = {"CT": "HU", "PET": "SUV", "MR": ""}
TEMPLATES = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class CasePage:
    """What the page shows of one case.

    Attributes:
        about: one sentence on where the images come from.
        picture: a PNG file, embedded into the page.
        statistics: as in ``statistics.json``.
        dice: 0..1 against the reference; None where there is none.
        seen: whether the model was trained on this patient.
        seconds: from reading the images to the written results.
        memory_mb: the process's peak so far; None where the system does not tell.
        credit: the attribution that the images' licence asks for.
    """

    name: str
    about: str
    picture: Path
    statistics: Mapping[str, Any]
    dice: float | None
    seen: bool
    seconds: float
    memory_mb: float | None
    credit: str | None


def check_installed() -> None:
    """Asks for Jinja2 before any work is done.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise missing_dependency("jinja2", extra="report", purpose="write the page of results") from error


def environment() -> "jinja2.Environment":
    """Where the pages' templates are found; every text in them is escaped, a name they lack is an error.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    check_installed()
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(
    *, title: str, cases: Sequence[CasePage], card: Mapping[str, Any], versions: Mapping[str, str], notes: Sequence[str]
) -> str:
    """The page's HTML; every text is escaped.

    Args:
        card: the model's card.
        versions: of the programs that made the results, by name.
        notes: sentences above the cases, e.g. what could not be shown.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    template = environment().get_template("page.html")
    return template.render(
        title=title,
        cases=[
            (case, base64.b64encode(case.picture.read_bytes()).decode(), measures(case.statistics, card))
            for case in cases
        ],
        card=card,
        facts=card_facts(card),
        versions=versions,
        notes=notes,
    )


def measures(statistics: Mapping[str, Any], card: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Rows of the table of measures: name, unit, and a text per label; a row that no label fills is left out."""
    labels = statistics["labels"]
    modalities = {one["name"]: one["modality"] for one in card["channels"]}
    rows: list[tuple[str, str, list[Any], int]] = [
        ("Volume", "mL", [label["volume_ml"] for label in labels], 1),
        ("Separate parts", "", [label["components"] for label in labels], 0),
        ("Mean uncertainty", "0-1", [label["mean_uncertainty"] for label in labels], 3),
    ]
    pet = [label["pet"] or {} for label in labels]
    for name, unit, key, digits in (
        ("SUVmax", "SUV", "suv_max", 2),
        ("SUVmean", "SUV", "suv_mean", 2),
        ("SUVpeak (1 mL)", "SUV", "suv_peak", 2),
        ("MTV", "mL", "mtv_ml", 1),
        ("TLG", "SUV x mL", "tlg", 1),
    ):
        rows.append((name, unit, [values.get(key) for values in pet], digits))
    for channel in labels[0]["channels"] if labels else ():
        values = [label["channels"][channel] for label in labels]
        unit = UNITS[modalities[channel]]
        if modalities[channel] != "PET":  # its mean is SUVmean
            rows.append((f"{channel}, mean", unit, [value["mean"] for value in values], 1))
        rows.append((f"{channel}, 5th to 95th percentile", unit, [_range(value) for value in values], 1))
    return [
        (name, unit, [_number(value, digits) for value in values])
        for name, unit, values, digits in rows
        if any(value is not None for value in values)
    ]


def _range(value: Mapping[str, float | None]) -> str | None:
    return None if value["p5"] is None else f"{value['p5']:.1f} to {value['p95']:.1f}"


def _number(value: Any, digits: int) -> str:
    if value is None:
        return "not measured"
    return value if isinstance(value, str) else f"{value:,.{digits}f}"


def card_facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader must know of a model before looking at its results."""
    training = card.get("training") or {}
    channels = ", ".join(
        one["name"] + (" (optional)" if one.get("optional") else "") for one in card.get("channels") or ()
    )
    facts = [
        ("Intended use", card.get("intended_use")),
        ("Inputs", channels),
        ("Labels", ", ".join(one["name"] for one in card.get("labels") or ())),
        ("Accuracy", plain(card.get("accuracy"))),
        ("Trained on", training.get("dataset")),
        ("Licence of the training data", training.get("licence")),
        ("Reference", training.get("reference")),
        ("Seconds per case", plain(card.get("seconds"))),
    ]
    return [(name, str(value)) for name, value in facts if value]


def plain(value: Any) -> str:
    """A JSON value as text: ``{"dice": {"mean": 0.7}}`` is ``dice: mean 0.7``."""
    if isinstance(value, Mapping):
        parts = [
            f"{str(key).replace('_', ' ')}{':' if isinstance(part, Mapping) else ''} {plain(part)}"
            for key, part in value.items()
            if part not in (None, "", [], {})
        ]
        return "; ".join(parts) if any(isinstance(part, Mapping) for part in value.values()) else ", ".join(parts)
    if isinstance(value, list | tuple):
        return " to ".join(map(plain, value)) if len(value) == 2 else ", ".join(map(plain, value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
