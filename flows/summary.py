"""What a run has made, spent and rejected, and the headline of its report, read from its folder.

Everything comes from marks, ledger, tables and metrics.json. So it is the same after a crash, and a run that
failed halfway is described as far as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

from data.errors import UniBindError
from data.show import duration
from flows.markdown import code, plain, table
from kb_builder.browse.query import sql_table
from pipeline.accuracies import anchor_title, percent, recognition_rows
from pipeline.project import ProjectFile
from pipeline.report.answer import answer
from pipeline.run.stage import StageResult
from pipeline.ui.watch import Requests, RunProgress, counts_text, progress, stale_stages

Row = dict[str, Any]
MOST_REASONS = 200  # rows of the table: Prefect shows ten a page, and searches all
_KEPT = "SELECT kind, count(*) AS n FROM v_descriptions WHERE status = 'ok' GROUP BY ALL ORDER BY kind"
_REJECTED = f"""
WITH found AS (
    SELECT 'texts about a ' || kind AS what, status AS verdict, coalesce(reason, '') AS reason
    FROM v_descriptions WHERE status <> 'ok'
    UNION ALL SELECT 'samples', stage, reason FROM v_rejects
), counted AS (SELECT what, verdict, reason, count(*) AS n FROM found GROUP BY ALL)
SELECT *, count(*) OVER () AS reasons
FROM counted ORDER BY n DESC, what, verdict, reason LIMIT {MOST_REASONS}"""
_REJECTIONS = """
SELECT 'texts about a ' || kind AS what, count(*) AS n FROM v_descriptions WHERE status <> 'ok' GROUP BY kind
UNION ALL SELECT 'samples', count(DISTINCT sample_id) FROM v_rejects HAVING count(*) > 0
ORDER BY what"""


@dataclass(frozen=True)
class RunSummary:
    """What is said of a run.

    `headline` is None and `results` is empty where no report is current. `rejected` has a row per reason, the
    most frequent first, and `rejections` the number of all rejected texts and samples, by what they are.
    """

    project: ProjectFile
    waiting: Sequence[str]  # stages that have not run
    requests: Requests | None
    headline: str | None
    results: Sequence[Row]
    kept: Mapping[str, int]  # accepted texts, by kind
    rejected: Sequence[Row]
    rejections: Mapping[str, int]
    unreadable: str | None  # why the tables cannot be read


def summarise(project: ProjectFile) -> RunSummary:
    """Read a run's folder. Takes a second or two: it checks whether the report is still current."""
    now = progress(project, {})
    headline, results = None, []
    if _is_current(project, now):
        metrics = json.loads((project.run / "metrics.json").read_text(encoding="utf-8"))
        headline, results = _headline(metrics, project), _results(metrics)
    kept: list[Row] = []
    found: list[Row] = []
    rejections: list[Row] = []
    unreadable = None
    try:
        kept = sql_table(project.kb, _KEPT).to_pylist()
        found = sql_table(project.kb, _REJECTED).to_pylist()
        rejections = sql_table(project.kb, _REJECTIONS).to_pylist()
    except UniBindError as error:  # nothing is ingested yet, or a file is damaged
        unreadable = str(error)
    return RunSummary(
        project=project,
        waiting=[each.name for each in now.stages if each.state == "waiting"],
        requests=now.requests,
        headline=headline,
        results=results,
        kept={row["kind"]: row["n"] for row in kept},
        rejected=_rejected(found),
        rejections={row["what"]: row["n"] for row in rejections},
        unreadable=unreadable,
    )


def _is_current(project: ProjectFile, now: RunProgress) -> bool:
    """Whether every stage has run and nothing that it depends on has changed."""
    if any(each.state != "done" for each in now.stages):
        return False
    return not any(stale_stages(project).values())


def to_markdown(summary: RunSummary, done: Sequence[StageResult], *, ended: str | None = None) -> str:
    """The summary as a page: the headline, then what this flow run did, what was spent and rejected.

    `done` are the stages of this flow run; `ended` is the error that ended it.
    """
    parts = [f"# {plain(summary.project.name)}"]
    if ended is not None:
        parts.append(f"**This run ended early:** {plain(ended)}")
    parts.append(summary.headline or "There is no current report: the last stages have not run.")
    if done:
        rows = [
            (
                each.name,
                "skipped" if each.skipped else duration(each.seconds),
                plain(counts_text(each.summary)),
            )
            for each in done
        ]
        parts += ["## Stages of this flow run", table("lrl", ("stage", "took", "counts"), rows)]
    parts += ["## Made and spent", _numbers(summary), "## Rejected", _rejections(summary)]
    if summary.waiting:
        parts.append(f"Not run yet: {', '.join(summary.waiting)}.")
    parts.append(f"Project file: {code(summary.project.path)}")
    return "\n\n".join(parts) + "\n"


def _numbers(summary: RunSummary) -> str:
    rows = [(f"texts about a {kind}, accepted", f"{count:,}") for kind, count in summary.kept.items()]
    asked = summary.requests
    if asked is not None:
        rows += [
            ("requests answered, by all runs", f"{asked.answered:,}"),
            ("requests that failed for good", f"{asked.failed:,}"),
            ("known cost of all runs", "unknown" if asked.cost_usd is None else f"US\\${asked.cost_usd:.4f}"),
        ]
    return table("lr", ("", ""), rows) if rows else "Nothing yet."


def _rejections(summary: RunSummary) -> str:
    if summary.unreadable is not None:
        return f"Not known: {plain(summary.unreadable)}"
    if not summary.rejections:
        return "Nothing."
    words = ", ".join(f"{what}: {count:,}" for what, count in summary.rejections.items())
    return f"{words}. The artifact of rejected rows has the reasons."


def _headline(metrics: Mapping[str, Any], project: ProjectFile) -> str:
    """The three sentences of the report's first screen."""
    markup = str(answer(metrics, project.predict.use))
    return plain(unescape(re.sub(r"<[^>]*>", "", markup)))


def _results(metrics: Mapping[str, Any]) -> list[Row]:
    """Top-1 in percent of every modality, split and model, beside the best control and chance."""
    rows = recognition_rows(metrics)
    shown = []
    for row in rows:
        if row.centers is None:
            continue
        best = max(row.controls, key=lambda name: row.controls[name].top1, default=None)
        shown.append(
            {
                "modality": row.modality,
                "split": row.split,
                "model": row.model,
                "top-1": percent(row.centers.top1),
                "from": percent(row.centers.low),
                "to": percent(row.centers.high),
                "best control": "" if best is None else plain(anchor_title(best, rows)),
                "its top-1": "" if best is None else percent(row.controls[best].top1),
                "chance": percent(row.chance),
                "samples": row.n,
            }
        )
    return shown


def _rejected(found: Sequence[Row]) -> list[Row]:
    rows: list[Row] = [
        {"what": each["what"], "by": each["verdict"], "reason": plain(each["reason"]), "rows": each["n"]}
        for each in found
    ]
    if found and found[0]["reasons"] > len(found):
        more = found[0]["reasons"] - len(found)
        rows.append({"what": "", "by": "", "reason": f"{more:,} rarer reasons are left out", "rows": ""})
    return rows
