"""A loss audit as a table to read."""

from .audit import TASK_ROW, TOTAL_ROW, AuditRow, LossAudit

HEADINGS = ("term", "teacher", "size", "weight", "loss", "gradient", "of Eq. 3's", "cosine")
TEXT_COLUMNS = (0, 1)
LEGEND = (
    "size: the term before its weights; weight: all it is multiplied with; loss: what it is then, in the sum.",
    "gradient: length of that part's gradient over the student's parameters, and its ratio to Eq. 3's.",
    "cosine: of the angle to Eq. 3's gradient: 1 pulls as the labels do, 0 across them, below 0 against them.",
)


def render(audit: LossAudit) -> str:
    """The text; sums stand below a rule."""
    table = [HEADINGS, *(_cells(row) for row in audit.rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = []
    for cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        for column in TEXT_COLUMNS:
            padded[column] = cells[column].ljust(widths[column])
        lines.append("  ".join(padded))
        if cells[0] in (HEADINGS[0], TASK_ROW, TOTAL_ROW):
            lines.append(rule)
    batches = "1 batch" if audit.batches == 1 else f"the mean of {audit.batches} batches"
    return "\n".join(
        [
            f"Loss audit of {audit.run}: the student with {audit.state} (step {audit.step}),",
            f"{batches} of {audit.batch_size} views on {audit.device} in {audit.precision}",
            "",
            *lines,
            *LEGEND,
        ]
    )


def _cells(row: AuditRow) -> tuple[str, ...]:
    figures = (row.size, row.weight, row.loss, row.gradient_norm, row.gradient_ratio)
    cosine = "-" if row.cosine is None else f"{row.cosine:+.3f}"
    return (row.term, row.teacher or "-", *("-" if n is None else f"{n:.4g}" for n in figures), cosine)
