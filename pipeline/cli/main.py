"""The command line `unibind`. Heavy imports stay inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import NothingToTrainError, UniBindError
from data.show import visible
from pipeline.cli.fake import fake_openai
from pipeline.cli.kb import DEFAULT_PROJECT, ProjectOption, kb_app, load
from pipeline.cli.models import models_app
from pipeline.cli.reproduce import reproduce
from pipeline.cli.terminal import USAGE_ERROR, own_lines, print_usage_error, safe_output

if TYPE_CHECKING:
    import data.modality
    from pipeline.run.stage import StageResult

app = typer.Typer(
    name="unibind",
    help="Build a knowledge base of LLM-written descriptions and align seven modalities to it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(kb_app, name="kb")
app.add_typer(models_app, name="models")
app.command("fake-openai")(fake_openai)
app.command()(reproduce)

Modality = Annotated[str | None, typer.Option(help="The files' modality, where the name does not tell it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/scripts.md).")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header (docs/scripts.md).")]
Top = Annotated[int, typer.Option(min=1, help="How many answers.")]
DESCRIBING = ("world", "ingest", "describe-categories", "describe-contrasts", "describe-samples")
_INTERRUPTED = 130
DEMO_PROJECT = Path(__file__).parents[2] / "demo.toml"


def main() -> None:
    """Run the command line; a user's mistake, or the disk's, is one line on stderr, never a traceback.

    Whatever is printed goes through pipeline/cli/terminal.py: no name from outside steers the terminal.
    """
    with safe_output():
        status = _status()
    sys.exit(status)


def _status() -> int:
    """Run the command line; returns the exit status, with what went wrong printed."""
    try:
        status = app(standalone_mode=False)
    except USAGE_ERROR as error:
        print_usage_error(error)
        return 2
    except UniBindError as error:
        return _failed(own_lines(error))
    except SystemExit as end:  # of the shell's completion
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # `unibind … | head`: the reader has had enough
        sys.stderr.close()
        return 0
    except (MemoryError, ImportError, RuntimeError) as error:
        if not _starved(error):
            return _bug()
        return _failed(
            "out of memory; end other programs, lift the limit (ulimit -v), or name a smaller model,"
            " then run again: nothing is lost"
        )
    except OSError as error:
        where = f": {visible(error.filename)}" if error.filename else ""
        return _failed(f"{visible(error.strerror or error)}{where}; fix that and run again: nothing is lost")
    except Exception:
        return _bug()
    if status == _INTERRUPTED:  # typer makes this of Ctrl-C
        print("\nstopped; run the same command again to go on", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _failed(words: str) -> int:
    print(f"error: {words}", file=sys.stderr)
    return 1


def _bug() -> int:
    """The traceback of an error that is ours, printed while the output is still a safe one."""
    sys.excepthook(*sys.exc_info())
    return 1


# How libraries say it; a library that does not fit is an ImportError, and torch has no type of its own.
_STARVED = ("failed to map", "allocate memory", "not enough memory", "out of memory", "start new thread")


def _starved(error: Exception) -> bool:
    """Whether an error is for want of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _STARVED)


def _run(path: Path, names: list[str] | None = None) -> list[StageResult]:
    """Run stages (default: the whole plan) and print the result table when there is a fresh evaluation."""
    import json

    from data.reads import reading
    from pipeline.run.runner import plan, run_stages
    from pipeline.table import result_table

    project = load(path)
    results = run_stages(project, names or plan(project))
    if names is None or "evaluate" in names:
        metrics = project.run / "metrics.json"
        print(result_table(json.loads(reading(metrics).read_text(encoding="utf-8"))))
        print(f"\nmetrics  {_short(metrics)}\nreport   {_short(project.run / 'report.html')}")
    return results


def _short(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    return visible(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@app.command()
def demo(project: ProjectOption = DEMO_PROJECT) -> None:
    """Run the whole main job on the tabletop sample world, with a real LLM."""
    _run(project)


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="A folder whose sub-folders are categories, splits or modalities.")
    ],
    project: ProjectOption = DEFAULT_PROJECT,
    modality: Annotated[
        str | None, typer.Option(help="Of every file, whatever its name or folder says.")
    ] = None,
    by_name: Annotated[
        bool, typer.Option("--by-name", help="The first word of a file's name is its category: dog_1.jpg.")
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read what links lead to, outside the folder too.")
    ] = False,
) -> None:
    """Write a manifest (CSV) and a commented project file for a folder of files."""
    from pipeline.init import init_project

    for line in init_project(
        folder, project, modality=_modality(modality), by_name=by_name, follow_links=follow_links
    ):
        print(visible(line))


def _modality(given: str | None) -> data.modality.Modality | None:
    """A modality by its name. Raises InputError with the known ones."""
    from data.errors import InputError
    from data.modality import MODALITIES

    if given is None:
        return None
    found = next((name for name in MODALITIES if name == given.casefold()), None)
    if found is None:
        raise InputError(
            f"--modality {given!r}: there is no such modality; there are {', '.join(MODALITIES)}"
        )
    return found


@app.command()
def split(
    project: ProjectOption = DEFAULT_PROJECT,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other splits.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Draw anew where the manifest has splits.")] = False,
) -> None:
    """Draw train, val and test in the manifest: whole things together, 60/20/20 in each category."""
    from pipeline.split import split_project

    for line in split_project(load(project), seed=seed, force=force):
        print(visible(line))


@app.command()
def run(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Run every stage of a project; finished ones are recognised and skipped."""
    _run(project)


@app.command()
def describe(
    project: ProjectOption = DEFAULT_PROJECT,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; say how many requests, tokens and dollars.")
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse", help="Where only max_tokens grew, ask again only what the old limit cut off."
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Ask again what the endpoint refused or never answered in earlier runs."
        ),
    ] = False,
) -> None:
    """Write the knowledge base's descriptions of categories and samples."""
    from kb_builder.describe.dry_run import forecast, to_text
    from pipeline.run.runner import forget_failed, run_stages

    checked = load(project)
    if reuse:
        checked = checked.with_reuse()
    if retry_failed:
        print(f"{forget_failed(checked):,} failed requests are to be asked again")
    if dry_run:
        run_stages(checked, ["world", "ingest"])
        categories, samples = checked.describe.categories, checked.describe.samples
        encoder = checked.encode.text
        print(to_text(forecast(checked.kb, checked.data_root, categories, samples, encoder=encoder)))
    else:
        run_stages(checked, [*DESCRIBING])


@app.command()
def encode(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Turn texts and samples into vectors."""
    _run(project, ["encode"])


@app.command()
def localize(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Choose each category's embedding centers."""
    _run(project, ["localize"])


@app.command()
def train(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Localize, train the alignment heads on the knowledge base's vectors, evaluate and report.

    Several processes train as one: torchrun --nproc-per-node 2 --no-python unibind train
    """
    from trainer.align.processes import is_follower, leave_process_group

    if is_follower():
        from trainer.align.train import train_as_follower

        checked = load(project)
        train_as_follower(checked.kb, checked.run, checked.train)
        return
    results = _run(project, ["localize", "train", "evaluate", "report"])
    leave_process_group()
    for result in results:
        if "not_trained" in result.summary:
            raise NothingToTrainError(result.summary["not_trained"])


@app.command()
def evaluate(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Measure recognition and retrieval beside the controls, and write the report."""
    _run(project, ["evaluate", "report"])


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or project files; two or more.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Say which of several runs on the same samples is better, and whether that may be luck."""
    from pipeline.compare.runs import compare as compared
    from pipeline.compare.runs import open_run
    from pipeline.compare.text import told

    comparison = compared([open_run(run) for run in runs])
    print(comparison.as_json() if as_json else told(comparison))


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study file, such as ablation.toml.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time; by default one per core.")
    ] = None,
) -> None:
    """Exchange parts of the method one by one, over several seeds, and say what each is worth."""
    from pipeline.study.file import load_study
    from pipeline.study.run import run_study
    from pipeline.study.text import study_text

    checked = load_study(file)
    print(study_text(run_study(checked, jobs=jobs)))
    folder = checked.project.run / "studies" / checked.file.name
    print(f"\nnumbers  {_short(folder / 'study.json')}\npage     {_short(folder / 'study.html')}")


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Files of any modality, or folders of them.")],
    project: ProjectOption = DEFAULT_PROJECT,
    categories: Annotated[
        str | None,
        typer.Option(
            help='Zero-shot: "imagenet", a file with one name a line, or names separated by commas.'
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="With --categories: a model of texts and media, such as clip:FOLDER (docs/models.md)."
        ),
    ] = None,
    modality: Modality = None,
    top: Top = 5,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Recognise files, with the description that spoke for each answer; a folder stands for the files in it.

    Ends with 1 where some file could not be recognised; the others are answered all the same.
    """
    from pipeline.predict.recognise import predict_files, predict_zero_shot
    from pipeline.predict.records import predictions_csv, predictions_json

    given = [(file, modality) for file in files]
    if encoder is not None and categories is None:
        raise typer.BadParameter("a project has encoders of its own; it goes with --categories")
    notes, say = _notes(as_json=as_json, as_csv=as_csv)
    predictions = (
        predict_zero_shot(given, categories, encoder=encoder, top=top, say=say)
        if categories is not None
        else predict_files(load(project), given, top=top, say=say)
    )
    if as_json or as_csv:
        found = list(predictions)
        print(predictions_json(found, notes) if as_json else predictions_csv(found))
        failed = any(prediction.error is not None for prediction in found)
    else:
        failed = False
        for prediction in predictions:
            print(prediction.told(), flush=True)
            failed = failed or prediction.error is not None
    if failed:
        raise typer.Exit(1)


def _notes(*, as_json: bool, as_csv: bool) -> tuple[list[str], Callable[[str], None]]:
    """Where notes are collected, and what prints them beside the answers, on stderr."""
    from pipeline.predict.recognise import say_on_stderr

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    notes: list[str] = []

    def say(note: str) -> None:
        notes.append(note)
        say_on_stderr(note)

    return notes, say


@app.command()
def retrieve(
    query: Annotated[str, typer.Argument(help="A file, or a text in words.")],
    project: ProjectOption = DEFAULT_PROJECT,
    into: Annotated[str | None, typer.Option(help="Only samples of this modality.")] = None,
    modality: Modality = None,
    top: Top = 10,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Find the samples nearest to a file or a text, across modalities."""
    from pipeline.predict.recognise import retrieve_samples
    from pipeline.predict.records import hits_csv, hits_json

    notes, say = _notes(as_json=as_json, as_csv=as_csv)
    hits = retrieve_samples(load(project), query, modality=modality, into=into, top=top, say=say)
    if as_json or as_csv:
        print(hits_json(query, hits, notes) if as_json else hits_csv(hits))
        return
    for hit in hits:
        print(hit.told())


@app.command()
def doctor(project: ProjectOption = DEFAULT_PROJECT) -> None:
    """Say what is installed, which models are there, and which endpoints answer."""
    from pipeline.doctor import examine

    checks = examine(load(project) if project.exists() else None)
    for check in checks:
        print(visible(check.told()))
    if any(check.needed and not check.ok for check in checks):
        raise typer.Exit(1)
