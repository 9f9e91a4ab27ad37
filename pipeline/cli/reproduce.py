"""`unibind reproduce`: a benchmark of the paper, and our number beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data.errors import InputError
from kb_builder.settings import CategoryDescriber


def reproduce(
    name: Annotated[str | None, typer.Argument(help="A benchmark; without one they are listed.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The unpacked benchmark, as it was published.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Of texts and samples; by default the embedded one, photos and videos untrained."),
    ] = "conse",
    describer: Annotated[CategoryDescriber, typer.Option(help="Who describes the categories.")] = "local",
    model: Annotated[str | None, typer.Option(help="The model of the describer openai.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Its address; default: OpenAI's.")] = None,
    texts: Annotated[int, typer.Option(min=1, help="Descriptions and centers per category.")] = 50,
    train: Annotated[bool, typer.Option("--train", help="Fine-tuned, too: train heads.")] = False,
    fold: Annotated[str | None, typer.Option(metavar="N|all", help="Of the benchmarks with folds.")] = None,
    variant: Annotated[str | None, typer.Option(help="Of the benchmarks that have several.")] = None,
    limit_per_category: Annotated[
        int | None, typer.Option(min=1, help="Samples of each category and split; marks the result.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take an incomplete copy as it is; marks the result.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of training.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Project files and runs; default: reproduce/NAME.")
    ] = None,
) -> None:
    """Run one of the paper's twelve benchmarks from its folder, and print our number beside the paper's."""
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
    print(run(order).told())
