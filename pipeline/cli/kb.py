"""`unibind kb`: query, verify and export a project's knowledge base, and parse its stored answers again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data.show import visible
from pipeline.cli.project import ProjectOption, ReadProject, load, load_to_read

if TYPE_CHECKING:
    from pipeline.project import ProjectFile

kb_app = typer.Typer(help="Query, verify and export the knowledge base.")
WithSql = Annotated[bool, typer.Option("--sql", help="Print the SQL of each answer above it.")]

PlaceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PLACE",
        help="s3://BUCKET/NAME, or a folder that machines share.",
        show_default="[run] publish of the project",
    ),
]


@kb_app.callback(invoke_without_command=True)
def kb(
    context: typer.Context,
    project: ReadProject = None,
) -> None:
    """Query, verify and export the knowledge base.

    Without a command: an SQL prompt over its views; from a pipe, run its SQL.
    """
    from data.errors import InputError

    if context.invoked_subcommand is not None:
        if project is not None:
            raise InputError(
                f"--project goes after the command: unibind kb {context.invoked_subcommand} -p ..."
            )
        return
    from kb_builder.browse.shell import interact, run_script

    folder = load_to_read(project).kb
    if sys.stdin.isatty():
        interact(folder)
    else:
        run_script(folder, sys.stdin)


@kb_app.command("stats")
def kb_stats(project: ReadProject = None, with_sql: WithSql = False) -> None:
    """Count what the knowledge base holds."""
    from kb_builder.browse.overview import stats

    print(stats(load_to_read(project).kb).to_text(with_sql=with_sql))


@kb_app.command("show")
def kb_show(category: str, project: ReadProject = None, with_sql: WithSql = False) -> None:
    """Show a category's descriptions, centers and rejected texts."""
    from kb_builder.browse.overview import show

    print(show(load_to_read(project).kb, category).to_text(with_sql=with_sql))


@kb_app.command("nearest")
def kb_nearest(
    text: str,
    k: Annotated[int, typer.Option("-k", min=1, help="How many descriptions.")] = 10,
    project: ReadProject = None,
    with_sql: WithSql = False,
) -> None:
    """Show the category descriptions nearest to a text."""
    from kb_builder.browse.query import nearest

    print(nearest(load_to_read(project).kb, text, k=k).to_text(with_sql=with_sql))


@kb_app.command("sql")
def kb_sql(
    query: str,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="PLACE", help="Query what is published there, in place of a project's."),
    ] = None,
    project: ReadProject = None,
    with_sql: WithSql = False,
) -> None:
    """Run a read-only SQL query over the knowledge base's views."""
    if at is not None:
        from kb_builder.publish.place import open_place
        from kb_builder.publish.remote import sql_published

        print(sql_published(open_place(at), query).to_text(with_sql=with_sql))
        return
    from kb_builder.browse.query import sql

    print(sql(load_to_read(project).kb, query).to_text(with_sql=with_sql))


@kb_app.command("views")
def kb_views(project: ReadProject = None) -> None:
    """Print the views as SQL for any DuckDB.

    unibind kb views > views.sql; duckdb -init views.sql
    """
    from kb_builder.browse.views import script

    print(script(load_to_read(project).kb))


@kb_app.command("export")
def kb_export(
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    table: Annotated[
        str, typer.Option("--table", help="category_texts, sample_texts, controls or samples.")
    ] = "category_texts",
    form: Annotated[str, typer.Option("--format", help="npy, safetensors or datasets.")] = "npy",
    role: Annotated[
        str | None, typer.Option("--role", help="The encoder's role: text, samples or zero_shot.")
    ] = None,
    project: ReadProject = None,
) -> None:
    """Export a table of vectors with its ids and encoder card."""
    from kb_builder.encode.exchange import export_table

    rows = export_table(load_to_read(project).kb, table, target, form=form, role=role)
    print(f"{rows:,} vectors in {visible(target)}")


@kb_app.command("import")
def kb_import(
    vectors: Annotated[Path, typer.Argument(help="A matrix of floats, .npy, one row per vector.")],
    ids: Annotated[Path, typer.Argument(help="A text file: the row_id, sample_id or uri of each row.")],
    name: Annotated[str, typer.Option("--name", help='Use them with `[encode] samples = "imported:NAME"`.')],
    table: Annotated[
        str, typer.Option("--table", help="category_texts, sample_texts, controls or samples.")
    ] = "samples",
    project: ProjectOption = None,
) -> None:
    """Import vectors computed elsewhere in place of an encoder's."""
    from data.lock import write_lock
    from kb_builder.encode.exchange import import_vectors

    checked = load(project)
    with write_lock(checked.run / "run.lock"):
        done = import_vectors(checked.kb, vectors, ids, table=table, name=name, dtype=checked.encode.dtype)
    print(visible(done))


@kb_app.command("add-texts")
def kb_add_texts(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CuPL or DCLIP JSON; a table (CSV, TSV, JSONL, Parquet) with columns class and text; or the"
            " folder of a knowledge base or pack."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name in this knowledge base.", show_default="the file's")
    ] = None,
    as_: Annotated[
        Literal["sentences", "descriptors"] | None,
        typer.Option(
            "--as",
            help="What the texts are; descriptors become sentences by DCLIP's template.",
            show_default="sentences if most name their class",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="The texts' licence, kept with them.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the texts added so far.")] = False,
    remove: Annotated[
        str | None, typer.Option("--remove", metavar="NAME", help="Remove what was added under this name.")
    ] = None,
    project: ProjectOption = None,
) -> None:
    """Add published texts about classes, judged like an LLM's.

    They stand beside an LLM's texts, or in their place: `texts` of describe.categories in the project.
    """
    from data.errors import InputError
    from data.lock import write_lock
    from kb_builder.added.sources import remove_source
    from kb_builder.describe.add_texts import add_texts, list_added

    if sum((file is not None, listed, remove is not None)) != 1:
        raise InputError("give one of FILE, --list or --remove NAME")
    checked = load_to_read(project) if listed else load(project)
    if listed:
        print(list_added(checked.kb))
        return
    with write_lock(checked.run / "run.lock"):
        if remove is not None:
            remove_source(checked.kb, remove)
            print(f"removed {visible(remove)}; `unibind run` takes its texts out of the descriptions")
        elif file is not None:
            done = add_texts(
                checked.kb,
                file,
                checked.describe.categories,
                encoder=checked.encode.text,
                name=name,
                licence=licence,
                as_=as_,
            )
            print(done)


@kb_app.command("strike")
def kb_strike(
    row: Annotated[
        str | None, typer.Argument(help="The row_id of a category's text, or its first characters.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, kept with it.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the texts that are struck out.")] = False,
    project: ProjectOption = None,
) -> None:
    """Strike out a text, so that it is never an embedding center.

    It stays in its table, and no request is asked for it; `unibind run` localizes again without it.
    """
    from data.errors import InputError
    from data.lock import write_lock
    from kb_builder.added.struck import full_id, read_struck, restore, strike

    if (row is None) != listed:
        raise InputError("give a row_id, or --list")
    checked = load_to_read(project) if listed else load(project)
    if row is None:
        for row_id, each in sorted(read_struck(checked.kb).items()):
            why = f"  ({visible(each.reason)})" if each.reason else ""
            print(f"{row_id[:12]}  {visible(each.category_id)}: {visible(each.text)}{why}")
        return
    with write_lock(checked.run / "run.lock"):
        if undo:
            known = [row_id for row_id in read_struck(checked.kb) if row_id.startswith(row)]
            done = restore(checked.kb, known[0] if len(known) == 1 else row)
        else:
            done = strike(checked.kb, full_id(checked.kb, row), reason=reason)
    word = "taken back" if undo else "struck out"
    print(f"{word}: {visible(done.text)}; `unibind run` localizes again")


@kb_app.command("pack")
def kb_pack(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    licence: Annotated[
        str | None,
        typer.Option("--license", help="An identifier such as cc-by-4.0.", show_default="unknown"),
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="The texts about samples too: they may tell private things.")
    ] = False,
    project: ReadProject = None,
) -> None:
    """Write the texts as a folder for others: no key, no path, no file of yours.

    Hugging Face's `datasets` opens it, and `unibind kb add-texts FOLDER` takes it into another project.
    """
    from kb_builder.added.pack import pack

    checked = load_to_read(project)
    done = pack(
        checked.kb,
        folder,
        checked.describe.categories,
        project=checked.name,
        encoder=checked.encode.text,
        licence=licence,
        samples=samples,
        secrets=_secrets(checked),
    )
    print(done)


def _secrets(project: ProjectFile) -> dict[str, str]:
    """What must not leave this machine: secret -> what it is."""
    found: dict[str, str] = {}
    for settings in (project.describe.categories, project.describe.samples):
        if key := os.environ.get(settings.api_key_env):
            found[key] = f"the API key in {settings.api_key_env}"
        urls = settings.base_url if isinstance(settings.base_url, tuple) else (settings.base_url,)
        found |= {url: "the endpoint's address" for url in urls if url}
    places = (Path.home(), project.path.parent, project.kb, project.data_root)
    return found | {str(place): "a path of this machine" for place in places if len(place.parts) > 1}


@kb_app.command("publish")
def kb_publish(
    place: PlaceArgument = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read back what is there, and replace what is damaged.")
    ] = False,
    project: ReadProject = None,
) -> None:
    """Publish the whole knowledge base, its vectors and its ledger for your other machines.

    Only what is not there yet is uploaded; a publication that was stopped is continued by the next.
    `kb pack` is for others: it leaves out what is private.
    """
    from data.lock import write_lock
    from kb_builder.publish.place import open_place
    from kb_builder.publish.publish import publish
    from pipeline.run.publishing import LOCK, say

    checked = load_to_read(project)
    to = open_place(place or _publish_to(checked))
    with write_lock(checked.run / LOCK, "kb publish"), write_lock(checked.run / "run.lock", "kb publish"):
        print(publish(checked.kb, to, check=check, say=say))


def _publish_to(project: ProjectFile) -> str:
    from data.errors import InputError

    if project.publish_to is None:
        raise InputError("name a place, such as s3://my-bucket/birds, or set `publish` in [run]")
    return project.publish_to


@kb_app.command("fetch")
def kb_fetch(
    place: PlaceArgument = None,
    folder: Annotated[
        Path | None, typer.Argument(help="The folder to write.", show_default="the project's knowledge base")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Its number.", show_default="the latest")
    ] = None,
    project: ReadProject = None,
) -> None:
    """Fetch a published knowledge base into a new folder, and verify every byte.

    If a run has not ended, what it has sent is fetched, all answers with it; `unibind run` continues it.
    """
    from kb_builder.publish.fetch import fetch
    from kb_builder.publish.place import open_place

    if place is None or folder is None:
        checked = load_to_read(project)
        place, folder = place or _publish_to(checked), folder or checked.kb
    print(fetch(open_place(place), folder, version))


@kb_app.command("verify")
def kb_verify(
    project: ReadProject = None,
    media: Annotated[bool, typer.Option("--media", help="Check the samples' own files too.")] = False,
    seal: Annotated[
        bool, typer.Option("--seal", help="First write new checksums of all files as they are now.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Derive every row again from the stored answers, and compare.")
    ] = False,
) -> None:
    """Check every row against the ledger and every file's checksum.

    Rows of files without a checksum, or whose checksum differs, are derived again.
    --deep and --seal derive all rows again from the stored answers.
    """
    from pipeline.run.sealing import seal_all
    from pipeline.verify import verify_project

    checked = load(project) if seal else load_to_read(project)
    if seal:
        print(f"wrote new checksums of {seal_all(checked):,} files")
    verification = verify_project(checked, media=media, deep=deep or seal)
    print(verification)
    if not verification.clean:
        raise typer.Exit(1)


@kb_app.command("explain")
def kb_explain(
    row: Annotated[str, typer.Argument(help="A row_id, or its first characters.")],
    project: ReadProject = None,
) -> None:
    """Show a description's prompt, raw answer and quality gates."""
    from kb_builder.verify.explain import explain

    print(explain(load_to_read(project).kb, row))


@kb_app.command("reparse")
def kb_reparse(project: ProjectOption = None) -> None:
    """Parse and filter the stored answers again; sends no request."""
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
