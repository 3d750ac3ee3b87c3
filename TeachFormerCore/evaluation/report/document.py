"""The report as a whole, and as files: Markdown with tables and pictures, CSVs, one self-contained HTML page."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import InputError, missing_dependency
from ..page import environment
from . import figures, further_tables, panels, paper_tables
from .arm_results import ArmResults
from .arms import Arm, Describe, awaited_arms, read_arms
from .audits import audit_tables
from .cases import Cohort
from .comparisons import QUESTIONS, Comparison, declared_comparisons
from .context import Context
from .kept_out import kept_out_cases
from .missing_channels import missing_channels
from .paper import paper_source
from .results import score_study
from .stored_scores import SCORES, StoredScores
from .study import Run, Study
from .table import Table
from .weighed_teachers import weighed_teachers

PAGE, MARKDOWN, SUMMARY, PER_CASE = "report.html", "report.md", "report.json", "per_case.csv"
PACKAGES = ("scipy", "matplotlib", "jinja2", "monai")
PURPOSE = "score runs and write the report"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: of its file, without ending.
        title: its heading.
        about: what to see in it, and by which rule it was made.
        png: the file.
    """

    name: str
    title: str
    about: str
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is written.

    Attributes:
        title: its heading.
        facts: name and text, of data and protocol.
        findings: for each declared question, sentences that say what was found.
        tables, pictures: in their order.
        per_case: one row for each arm, fold, seed, case and label.
        scores: all of them, for a later report.
        notes: what a reader must know, e.g. what is not finished.
        damaged: titles of runs that could not be used.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    findings: Mapping[str, Sequence[str]]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    per_case: Table
    scores: StoredScores
    notes: Sequence[str]
    damaged: Sequence[str]


def check_installed() -> None:
    """Asks for what the report needs before any work is done.

    Raises:
        MissingDependencyError: naming the first package that is not installed.
    """
    import importlib

    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise missing_dependency(package, extra="report", purpose=PURPOSE) from error


def make_report(
    study: Study,
    cohort: Cohort,
    *,
    describe: Describe,
    title: str | None = None,
    kept_out: Cohort | None = None,
    stored: StoredScores | None = None,
) -> Report:
    """Scores a study and makes its tables and figures.

    Args:
        study: see `read_study`.
        cohort: the data it was trained on.
        describe: tells the size of a run's network.
        title: the heading.
        kept_out: the cases that the whole cross-validation keeps out, where its runs were tested on them.
        stored: scores of an earlier report, for runs whose predictions are gone.

    Raises:
        MissingDependencyError: see `check_installed`.
    """
    check_installed()
    study = _with_networks(study, describe)
    stored = stored or StoredScores()
    results, damaged = score_study(study, cohort, stored=stored)
    tested: dict[str, ArmResults] = {}
    if kept_out:
        tested, more = score_study(study, kept_out, kept_out=True, stored=stored)
        damaged += more
    study = replace(study, unfinished=study.unfinished + tuple(damaged))
    arms = read_arms(study, results, describe)
    comparisons = declared_comparisons(arms, awaited_arms(study, results, describe))
    source = paper_source(cohort.dataset, len(study.example.window))
    context = Context(study=study, cohort=cohort, arms=arms, source=source)
    made = [
        further_tables.runs(context),
        further_tables.unfinished(context),
        paper_tables.size_and_accuracy(context),
        paper_tables.cross_validation(context),
        paper_tables.number_of_teachers(context),
        paper_tables.loss_terms(context),
        kept_out_cases(context, tested),
        missing_channels(arms),
        weighed_teachers(arms),
        further_tables.statistics(context, comparisons),
        further_tables.detection_and_calibration(context),
        further_tables.slice_means(context),
        *audit_tables(arms),
    ]
    return Report(
        title=title or f"TeachFormer: {study.name}",
        facts=_facts(study, cohort),
        findings={
            QUESTIONS[question]: [_sentence(one) for one in comparisons if one.question == question]
            for question in dict.fromkeys(one.question for one in comparisons)
        },
        tables=[table for table in made if table is not None],
        pictures=_pictures(arms, comparisons, cohort),
        per_case=_per_case(arms),
        scores=stored,
        notes=_notes(study),
        damaged=[f"{one.arm}, fold {one.fold}, seed {one.seed}: {one.why}" for one in study.unfinished if one.damaged],
    )


def write_report(report: Report, folder: Path, files: Any) -> None:
    """Writes the report's files into a folder.

    Args:
        folder: is there; ``tables`` and ``figures`` are made in it.
        files: an open ``data.image.OutputFiles``, so that the files appear together or not at all.
    """
    for name in ("tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    for table in report.tables:
        files.write_text(table.csv(), folder / "tables" / f"{table.name}.csv")
    for picture in report.pictures:
        files.temporary(folder / "figures" / f"{picture.name}.png").write_bytes(picture.png)
    files.write_text(report.per_case.csv(), folder / PER_CASE)
    files.write_text(json.dumps(report.scores.as_json(), allow_nan=False) + "\n", folder / SCORES)
    files.write_text(markdown(report), folder / MARKDOWN)
    files.write_text(html(report), folder / PAGE)
    files.write_text(json.dumps(summary(report), indent=1, allow_nan=False) + "\n", folder / SUMMARY)


def summary(report: Report) -> dict[str, Any]:
    """The tables as lists of rows by their names, for programs; never NaN or infinity."""
    rows = {table.name: [dict(row) for row in table.rows] for table in report.tables}
    facts = {"title": report.title, "facts": dict(report.facts), "findings": dict(report.findings)}
    return facts | {"notes": list(report.notes), "damaged": list(report.damaged), "tables": rows}


def markdown(report: Report) -> str:
    """The report as Markdown; pictures and CSVs are linked beside it."""
    parts = [f"# {report.title}", *(f"- **{name}**: {text}" for name, text in report.facts)]
    lines = ["\n".join([parts[0], "", *parts[1:]])]
    if report.notes:
        lines.append("\n".join(f"> {note}  " for note in report.notes))
    if report.findings:
        lines.append("## What was found")
    for question, sentences in report.findings.items():
        lines.append(f"**{question}**\n\n" + "\n".join(f"- {sentence}" for sentence in sentences))
    for table in report.tables:
        lines.append(f"## {table.title}\n\n{table.about}\n\n{table.markdown()}")
        lines += ["\n".join(f"- {note}" for note in table.notes)] if table.notes else []
        lines.append(f"[{table.name}.csv](tables/{table.name}.csv)")
    for picture in report.pictures:
        lines.append(f"## {picture.title}\n\n![{picture.title}](figures/{picture.name}.png)\n\n{picture.about}")
    lines.append(f"Every case: [{PER_CASE}]({PER_CASE}).")
    return "\n\n".join(lines) + "\n"


def report_markdown(folder: Path, *, link: str = "", level: int = 1) -> str:
    """The Markdown of a written report, to be put into another document.

    Args:
        folder: as written by `write_report`.
        link: where the folder lies, seen from that document, e.g. ``results/sts``.
        level: of the first heading there.
    """
    text = (folder / MARKDOWN).read_text(encoding="utf-8")
    text = re.sub(r"^(#+ )", "#" * (level - 1) + r"\1", text, flags=re.MULTILINE)
    return re.sub(r"\]\((?=tables/|figures/|per_case)", f"]({link.rstrip('/') + '/' if link else ''}", text)


def html(report: Report) -> str:
    """The report as one page that needs no network: style and pictures are in it."""
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            tables=[(table, table.cells()) for table in report.tables],
            pictures=[(picture, base64.b64encode(picture.png).decode()) for picture in report.pictures],
        )
    )


def _with_networks(study: Study, describe: Describe) -> Study:
    """The study without the runs whose manifest names a network that cannot be built."""
    runs, unusable = [], []
    for run in study.runs:
        try:
            describe(run)
            runs.append(run)
        except InputError as error:
            unusable.append(run.unusable(str(error)))
    if not runs:
        raise InputError(f"There is no run that can be used: {unusable[0].why}")
    return replace(study, runs=tuple(runs), unfinished=(*study.unfinished, *unusable))


def _pictures(arms: Sequence[Arm], comparisons: Sequence[Comparison], cohort: Cohort) -> list[Picture]:
    drawn = [
        (
            "bubbles",
            "Dice over size",
            "Each bubble is an arm, its area the FLOPs of one window. Lines are what needs no network of its own. n: "
            "the patients of an arm scored on fewer than others; paired differences compare it, heights do not.",
            figures.bubble_chart(arms),
        ),
        (
            "differences",
            "Differences and p-values",
            "Left: differences of Dice per patient. Right: p of the same comparisons, before and after Holm.",
            figures.difference_chart(comparisons),
        ),
        (
            "learning_curves",
            "Learning curves",
            "A line is a run. " + _who_chooses(arms),
            figures.learning_curves(arms),
        ),
        ("loss_terms", "Loss terms", "As they enter the sum, mean over the runs of an arm.", figures.loss_curves(arms)),
    ]
    selection = panels.select(arms)
    if selection is not None:
        credit = f" Images: {cohort.dataset}, {cohort.licence}, modified." if cohort.licence else ""
        about = (
            "Chosen by rule, not by hand: of the distilled arm with the highest mean Dice, the patients with the "
            "lowest, the median and the highest difference of Dice to its student alone; "
            f"the axial slice with the largest reference area.{credit}"
        )
        drawn.append(("panels", "Single cases", about, panels.panels(selection, cohort)))
    return [
        Picture(name=name, title=title, about=about, png=figures.png(figure))
        for name, title, about, figure in drawn
        if figure is not None
    ]


def _who_chooses(arms: Sequence[Arm]) -> str:
    """Of the learning curves' cases, that they are the reported ones where a protocol has it so."""
    protocols = {run.config["protocol"] for arm in arms for run in arm.runs}
    told = {
        "sound": "The choosing cases are patients of the training folds, never those that are reported.",
        "paper": "By the protocol 'paper' the choosing cases are the very ones that are reported.",
    }
    return " ".join(told[protocol] for protocol in sorted(protocols, reverse=True))


def _facts(study: Study, cohort: Cohort) -> list[tuple[str, str]]:
    x, y, z = cohort.spacing
    versions = sorted({run.manifest["versions"]["TeachFormer"] for run in study.runs if "versions" in run.manifest})
    facts = [
        ("Data", cohort.dataset + (f" ({cohort.licence})" if cohort.licence else "")),
        ("Channels", ", ".join(str(channel["name"]) for channel in cohort.channels)),
        ("Labels", ", ".join(cohort.scored)),
        ("Grid", f"{x:g} x {y:g} x {z:g} mm: all scores are volume-level, on this grid of the model"),
        ("Runs", f"{len(study.runs)} finished, {len(study.unfinished)} not in the figures"),
        ("Preparation", str(study.example.manifest["data"]["preparation"])[:12]),
        ("Protocol", ", ".join(f"{name}: {key[:12]}" for name, key in study.protocols.items())),
        ("Made with", "TeachFormer " + ", ".join(versions) if versions else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _notes(study: Study) -> list[str]:
    notes = []
    damaged_count = sum(one.damaged for one in study.unfinished)
    waiting = len(study.unfinished) - damaged_count
    if waiting:
        counted = f"{waiting} runs are" if waiting > 1 else "1 run is"
        notes.append(f"Interim: {counted} not finished (see 'Not in the figures'); every figure may change.")
    if damaged_count:
        notes.append(f"Finished runs that could not be used: {damaged_count} (see 'Not in the figures').")
    weights_of = {run.folder.name: run.manifest["weights_sha256"] for run in study.runs}
    replaced = sorted({run.folder.name for run in study.runs if _was_taught_by_others(run, weights_of)})
    if replaced:
        notes.append(
            f"Taught by weights that are not those of the teacher's run in this report, which was trained anew since: "
            f"{', '.join(replaced)}. A comparison with that teacher is with another draw of it."
        )
    chosen = sorted({run.arm for run in study.runs if run.config["protocol"] == "paper"})
    if chosen:
        notes.append(
            f"Protocol 'paper' ({', '.join(chosen)}): the weights were chosen on the very patients that are reported, "
            "as in the paper; these figures are too high."
        )
    return notes


def _was_taught_by_others(run: Run, weights_of: Mapping[str, str]) -> bool:
    """Whether a teacher's weights are not those of its run's folder; one that is not there cannot be told."""
    return any(
        weights_of.get(Path(teacher["run"]).name, teacher["weights_sha256"]) != teacher["weights_sha256"]
        for teacher in run.manifest["teachers"]
    )


def _sentence(one: Comparison) -> str:
    result = one.result
    low, high = result.interval or (result.mean, result.mean)
    interval = f"{100 * result.confidence:.0f} % interval {100 * low:+.1f} to {100 * high:+.1f}"
    figures_text = (
        f"{100 * result.mean:+.1f} Dice points ({interval}; {result.pairs} patients; "
        f"{_p('p', result.p_permutation)}, {_p('Holm', one.p_holm)})"
    )
    interim = ", interim" if one.interim else ""
    mixed = f" (trained in different precisions: fold {', '.join(one.mixed_folds)})" if one.mixed_folds else ""
    return f"{one.first.title} against {one.second.title}: {figures_text}: {one.verdict}{interim}{mixed}."


def _p(name: str, value: float) -> str:
    return f"{name} <0.0001" if value < 1e-4 else f"{name} {value:.4f}"


def _per_case(arms: Sequence[Arm]) -> Table:
    rows: list[Mapping[str, Any]] = []
    for arm in arms:
        for result in arm.results.results:
            seed = "" if arm.kind == "prior" else result.seed
            where = {"arm": arm.name, "fold": result.fold, "seed": seed, "patient": result.patient}
            rows += [where | one.detailed_row() for one in result.scores]
    keys = [key for key in (rows[0] if rows else ()) if key != "seen"]
    from .table import Column

    return Table(
        name="per_case",
        title="Every case",
        about="",
        columns=tuple(Column(key=key, title=key) for key in keys),
        rows=tuple(rows),
    )
