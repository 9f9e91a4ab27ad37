"""`unibind models`: the model folder, and the only command that downloads anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from data.show import visible, visible_lines

models_app = typer.Typer(help="List the models that are known, check them, or fetch one.")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare checksums and load every model that is there, one by one."),
    ] = False,
) -> None:
    """List the models that are known, their licences, and whether they are in the model folder."""
    if context.invoked_subcommand is not None:
        return
    from data.errors import UniBindError
    from kb_builder.weights.known import VARIABLE, forbids_commerce, model_folder
    from pipeline.models import check_model, list_models

    print(f"looked for in {visible(model_folder().absolute())} ({VARIABLE} names another folder)\n")
    failed = False
    for listed in list_models():
        print(visible_lines(listed.told()))
        if listed.known and forbids_commerce(listed.known.licence):
            print(f"{'':<24} its weights are not for commercial use")
        if check and listed.state == "there":
            try:
                print(f"{'':<24} ok: {visible(check_model(listed))}")
            except UniBindError as error:
                failed = True
                print(f"{'':<24} FAIL: {visible(error)}")
    if failed:
        raise typer.Exit(1)


@models_app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A name that `unibind models` lists.")],
    list_file: Annotated[
        Path | None, typer.Option("--list", help="Another list of models and addresses, in TOML.")
    ] = None,
) -> None:
    """Download a model into the model folder; a broken download goes on where it broke off."""
    from kb_builder.weights.known import forbids_commerce, known_models, read_models
    from pipeline.models import get_model

    known = read_models(list_file) if list_file else known_models()
    if name in known:
        model = known[name]
        note = ", not for commercial use" if forbids_commerce(model.licence) else ""
        print(f"{name}: about {model.megabytes:,} MB; licence of the weights: {visible(model.licence)}{note}")
    folder, fetched = get_model(name, known, told=_progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for path, each in fetched.items():
        vouched = {
            "list": "as its list says",
            "server": "as its server says",
            "nothing": "none is published; it is recorded for later checks",
        }[each.checked]
        print(f"{visible(folder / path)}  SHA-256 {each.sha256[:16]}… {vouched}")
    print(f"{visible(folder)}: {'complete' if fetched else 'was complete already'}")


def _progress(path: str, here: int, total: int | None) -> None:
    if sys.stderr.isatty():
        of = f" of {total / 1e6:,.1f}" if total else ""
        print(f"\r{visible(path)}: {here / 1e6:,.1f}{of} MB ", end="", file=sys.stderr, flush=True)
