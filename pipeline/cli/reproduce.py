"""`unibind reproduce`: run a benchmark of the paper and print our number beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from data.errors import InputError

# As kb_builder.settings.CategoryDescriber, whose import would slow down `--help`.
Describer = Literal["local", "openai", "fake"]


def reproduce(
    name: Annotated[str | None, typer.Argument(help="A benchmark; leave it out to list all.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The unpacked benchmark as published.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Encoder of texts and samples; `conse` covers photos and videos without training."),
    ] = "conse",
    describer: Annotated[Describer, typer.Option(help="Describer of the categories.")] = "local",
    model: Annotated[str | None, typer.Option(help="Model for --describer openai.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Endpoint for --describer openai; default: OpenAI's.")
    ] = None,
    texts: Annotated[int, typer.Option(min=1, help="Descriptions and centers per category.")] = 50,
    train: Annotated[
        bool, typer.Option("--train", help="Also train heads (the fine-tuned setting).")
    ] = False,
    fold: Annotated[str | None, typer.Option(metavar="N|all", help="For benchmarks with folds.")] = None,
    variant: Annotated[str | None, typer.Option(help="For benchmarks with variants.")] = None,
    limit_per_category: Annotated[
        int | None, typer.Option(min=1, help="Samples per category and split; marks the result.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept an incomplete copy; marks the result.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Training epochs.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For project files and runs; default: reproduce/NAME."),
    ] = None,
) -> None:
    """Run one of the paper's benchmarks beside its numbers."""
    from data.benchmarks import BENCHMARKS, find_benchmark

    if name is None:
        for each in BENCHMARKS.values():
            classes = "?" if each.classes is None else f"{each.classes:,}"
            print(f"{each.name:<14}{each.modality:<9}{classes:>6} categories  {each.home}")
        return
    benchmark = find_benchmark(name)
    if data is None:
        raise InputError(
            f"--data names the folder of {benchmark.title}: {benchmark.layout}. From {benchmark.home}"
        )
    from pipeline.reproduce.order import Order
    from pipeline.reproduce.run import reproduce as run

    order = Order(
        benchmark=benchmark,
        data=data,
        out=out or Path("reproduce") / benchmark.name,
        encoder=encoder,
        describer=describer,
        model=model,
        base_url=base_url,
        texts=texts,
        train=train,
        fold=fold,
        variant=variant,
        per_category=limit_per_category,
        partial=partial,
        epochs=epochs,
        seed=seed,
    )
    print(run(order).to_text())
