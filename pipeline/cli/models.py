"""`unibind models`: list, check and download models; no other command downloads anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from data.show import visible, visible_lines

models_app = typer.Typer(help="List, check or download encoder models.")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare the checksums of every model present, and load it."),
    ] = False,
) -> None:
    """List the known models, their licences, and whether they are in the model folder."""
    if context.invoked_subcommand is not None:
        return
    from data.errors import UniBindError
    from kb_builder.weights.known import VARIABLE, forbids_commerce, model_folder
    from pipeline.models import check_model, list_models

    print(f"model folder: {visible(model_folder().absolute())} (set {VARIABLE} to change it)\n")
    failed = False
    for listed in list_models():
        print(visible_lines(listed.to_text()))
        if listed.known and forbids_commerce(listed.known.licence):
            print(f"{'':<24} its weights may not be used commercially")
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
        Path | None, typer.Option("--list", help="A TOML file with other models and addresses.")
    ] = None,
) -> None:
    """Download a model into the model folder, or resume its download."""
    from kb_builder.weights.known import forbids_commerce, known_models, read_models
    from pipeline.models import get_model

    known = read_models(list_file) if list_file else known_models()
    if name in known:
        model = known[name]
        note = ", not for commercial use" if forbids_commerce(model.licence) else ""
        print(f"{name}: about {model.megabytes:,} MB; licence of the weights: {visible(model.licence)}{note}")
    folder, fetched = get_model(name, known, progress=_progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for path, each in fetched.items():
        vouched = {
            "list": "matches the list",
            "server": "matches the server's",
            "nothing": "no published checksum; stored for later checks",
        }[each.checked]
        print(f"{visible(folder / path)}  SHA-256 {each.sha256[:16]}… {vouched}")
    print(f"{visible(folder)}: {'complete' if fetched else 'already complete'}")


def _progress(path: str, here: int, total: int | None) -> None:
    if sys.stderr.isatty():
        of = f" of {total / 1e6:,.1f}" if total else ""
        print(f"\r{visible(path)}: {here / 1e6:,.1f}{of} MB ", end="", file=sys.stderr, flush=True)
