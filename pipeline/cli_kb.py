"""`unibind kb`: look into the knowledge base, check it, and judge its answers anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.project import Project

kb_app = typer.Typer(
    help="Look into the knowledge base, check it, and judge its answers anew.", no_args_is_help=True
)
ProjectFile = Annotated[Path, typer.Option("--project", "-p", help="The project file.")]
DEFAULT_PROJECT = Path("unibind.toml")


def load(path: Path) -> Project:
    """The checked project file."""
    from pipeline.project import load_project

    return load_project(path)


@kb_app.command("stats")
def kb_stats(project: ProjectFile = DEFAULT_PROJECT) -> None:
    """Count what the knowledge base holds."""
    from kb_builder.browse import stats

    print(stats(load(project).kb))


@kb_app.command("show")
def kb_show(category: str, project: ProjectFile = DEFAULT_PROJECT) -> None:
    """Show a category's descriptions, its centers, and what was rejected and why."""
    from kb_builder.browse import show

    print(show(load(project).kb, category))


@kb_app.command("sql")
def kb_sql(query: str, project: ProjectFile = DEFAULT_PROJECT) -> None:
    """Run a read-only SQL query over the knowledge base's views."""
    from kb_builder.browse import sql

    print(sql(load(project).kb, query))


@kb_app.command("verify")
def kb_verify(project: ProjectFile = DEFAULT_PROJECT) -> None:
    """Derive every row anew from the stored answers, and check every file against its checksum."""
    from kb_builder.verify import verify

    verification = verify(load(project).kb)
    print(verification)
    if not verification.clean:
        raise typer.Exit(1)


@kb_app.command("explain")
def kb_explain(
    row: Annotated[str, typer.Argument(help="A row_id, or its first characters.")],
    project: ProjectFile = DEFAULT_PROJECT,
) -> None:
    """Show where a description comes from: prompt, request, raw answer, and every gate's verdict."""
    from kb_builder.explain import explain

    print(explain(load(project).kb, row))


@kb_app.command("reparse")
def kb_reparse(project: ProjectFile = DEFAULT_PROJECT) -> None:
    """Parse and judge the stored answers by today's rules; nothing is asked, nothing is paid."""
    from kb_builder.lock import write_lock
    from kb_builder.reparse import reparse

    checked = load(project)
    with write_lock(checked.run / "run.lock"):
        done = reparse(
            checked.kb,
            checked.data_root,
            checked.describe.categories,
            checked.describe.samples,
            run_id=checked.name,
            encoder=checked.encode.text,
        )
    print(done)
