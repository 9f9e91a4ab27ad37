"""`unibind kb`: look into the knowledge base, check it, and judge its answers anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.show import visible

if TYPE_CHECKING:
    from pipeline.project import ProjectFile

kb_app = typer.Typer(help="Look into the knowledge base, check it, and judge its answers anew.")
ProjectOption = Annotated[Path, typer.Option("--project", "-p", help="The project file.")]
WithSql = Annotated[bool, typer.Option("--sql", help="Print the SQL of each answer above it.")]
DEFAULT_PROJECT = Path("unibind.toml")


def load(path: Path) -> ProjectFile:
    """The checked project file; from now on its files are decoded within its budget."""
    from data.readers import use_budget
    from pipeline.project import load_project

    project = load_project(path)
    use_budget(project.data.budget)
    return project


@kb_app.callback(invoke_without_command=True)
def kb(
    context: typer.Context,
    project: Annotated[Path | None, typer.Option("--project", "-p", help="The project file.")] = None,
) -> None:
    """Look into the knowledge base, check it, and judge its answers anew.

    Without a command: a prompt for SQL over its views; from a pipe, the statements that it brings.
    """
    from data.errors import InputError

    if context.invoked_subcommand is not None:
        if project is not None:
            raise InputError(
                f"say --project after the command: unibind kb {context.invoked_subcommand} -p ..."
            )
        return
    from kb_builder.browse.shell import interact, run_script

    folder = load(project or DEFAULT_PROJECT).kb
    if sys.stdin.isatty():
        interact(folder)
    else:
        run_script(folder, sys.stdin)


@kb_app.command("stats")
def kb_stats(project: ProjectOption = DEFAULT_PROJECT, with_sql: WithSql = False) -> None:
    """Count what the knowledge base holds."""
    from kb_builder.browse.overview import stats

    print(stats(load(project).kb).to_text(with_sql=with_sql))


@kb_app.command("show")
def kb_show(category: str, project: ProjectOption = DEFAULT_PROJECT, with_sql: WithSql = False) -> None:
    """Show a category's descriptions, its centers, and what was rejected and why."""
    from kb_builder.browse.overview import show

    print(show(load(project).kb, category).to_text(with_sql=with_sql))


@kb_app.command("nearest")
def kb_nearest(
    text: str,
    k: Annotated[int, typer.Option("-k", min=1, help="How many descriptions.")] = 10,
    project: ProjectOption = DEFAULT_PROJECT,
    with_sql: WithSql = False,
) -> None:
    """Show the category descriptions nearest to a text."""
    from kb_builder.browse.query import nearest

    print(nearest(load(project).kb, text, k=k).to_text(with_sql=with_sql))


@kb_app.command("sql")
def kb_sql(query: str, project: ProjectOption = DEFAULT_PROJECT, with_sql: WithSql = False) -> None:
    """Run a read-only SQL query over the knowledge base's views."""
    from kb_builder.browse.query import sql

    print(sql(load(project).kb, query).to_text(with_sql=with_sql))


@kb_app.command("views")
def kb_views(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Print the views as SQL for any DuckDB: unibind kb views > views.sql; duckdb -init views.sql."""
    from kb_builder.browse.views import script

    print(script(load(project).kb))


@kb_app.command("export")
def kb_export(
    target: Annotated[Path, typer.Argument(help="The folder to make.")],
    table: Annotated[
        str, typer.Option("--table", help="category_texts, sample_texts, controls or samples.")
    ] = "category_texts",
    form: Annotated[str, typer.Option("--format", help="npy, safetensors or datasets.")] = "npy",
    role: Annotated[
        str | None, typer.Option("--role", help="Whose vectors: text, samples or zero_shot.")
    ] = None,
    project: ProjectOption = DEFAULT_PROJECT,
) -> None:
    """Write a table of vectors, with its names and its encoder's card, for other tools."""
    from kb_builder.encode.exchange import export_table

    rows = export_table(load(project).kb, table, target, form=form, role=role)
    print(f"{rows:,} vectors in {visible(target)}")


@kb_app.command("import")
def kb_import(
    vectors: Annotated[Path, typer.Argument(help="A matrix of floats, .npy, one row per vector.")],
    ids: Annotated[Path, typer.Argument(help="A text file: which row_id, sample_id or uri each row is.")],
    name: Annotated[str, typer.Option("--name", help='Then `[encode] samples = "imported:NAME"` uses them.')],
    table: Annotated[
        str, typer.Option("--table", help="category_texts, sample_texts, controls or samples.")
    ] = "samples",
    project: ProjectOption = DEFAULT_PROJECT,
) -> None:
    """Put vectors that were made elsewhere into the embedding store, in the place of an encoder's."""
    from data.lock import write_lock
    from kb_builder.encode.exchange import import_vectors

    checked = load(project)
    with write_lock(checked.run / "run.lock"):
        done = import_vectors(checked.kb, vectors, ids, table=table, name=name, dtype=checked.encode.dtype)
    print(visible(done))


@kb_app.command("verify")
def kb_verify(
    project: ProjectOption = DEFAULT_PROJECT,
    media: Annotated[bool, typer.Option("--media", help="Check the samples' own files too.")] = False,
    seal: Annotated[
        bool, typer.Option("--seal", help="First write the checksums of all files as they are now.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Derive every row anew from the stored answers, and compare.")
    ] = False,
) -> None:
    """Check every file against its checksum, and all rows against the ledger and each other.

    Rows of files without a checksum, or that are not as they were written, are derived anew from the stored
    answers; so are all with --deep, and with --seal, whose checksums say nothing of who wrote the files.
    """
    from pipeline.run.sealing import seal_all
    from pipeline.verify import verify_project

    checked = load(project)
    if seal:
        print(f"wrote the checksums of {seal_all(checked):,} files, as they are now")
    verification = verify_project(checked, media=media, deep=deep or seal)
    print(verification)
    if not verification.clean:
        raise typer.Exit(1)


@kb_app.command("explain")
def kb_explain(
    row: Annotated[str, typer.Argument(help="A row_id, or its first characters.")],
    project: ProjectOption = DEFAULT_PROJECT,
) -> None:
    """Show where a description comes from: prompt, request, raw answer, and every gate's verdict."""
    from kb_builder.verify.explain import explain

    print(explain(load(project).kb, row))


@kb_app.command("reparse")
def kb_reparse(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Parse and judge the stored answers by today's rules; nothing is asked, nothing is paid."""
    from data.lock import write_lock
    from kb_builder.verify.reparse import reparse

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
