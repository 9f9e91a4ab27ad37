"""The command line `unibind`. Heavy imports stay inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import InputError, NothingToTrainError, UniBindError
from data.show import visible
from pipeline.cli.fake import fake_openai
from pipeline.cli.kb import kb_app
from pipeline.cli.models import models_app
from pipeline.cli.project import (
    DEFAULT_PROJECT,
    ProjectOption,
    ReadProject,
    load,
    load_if_any,
    load_to_read,
    remember,
)
from pipeline.cli.reproduce import reproduce
from pipeline.cli.terminal import USAGE_ERROR, own_lines, print_usage_error, safe_output
from pipeline.ui import PORT

if TYPE_CHECKING:
    from data.modality import Modality
    from pipeline.project import ProjectFile
    from pipeline.run.stage import StageResult

app = typer.Typer(
    name="unibind",
    help="Build a knowledge base of LLM-written descriptions and align seven modalities to it.",
    epilog="Start with `unibind demo`. `unibind COMMAND --help` lists the options of a command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# The panels of `unibind --help`, in the order in which their first command is registered below.
START, LOOK, STAGE = "Start here", "Look at a run", "Run one stage"
MEASURE, OPERATE = "Measure and compare", "Operate"

GivenModality = Annotated[
    str | None, typer.Option("--modality", help="The files' modality, where the file name does not show it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/scripts.md).")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header (docs/scripts.md).")]
Top = Annotated[int, typer.Option(min=1, help="Number of answers.")]
DESCRIBING = ("world", "ingest", "describe-categories", "describe-contrasts", "describe-samples")
_INTERRUPTED = 130
DEMO_PROJECT = Path(__file__).parents[2] / "demo.toml"


def main() -> None:
    """Run the command line. A mistake of the user's or an error of the disk is one line on stderr.

    All output goes through pipeline/cli/terminal.py: no name from outside can send control sequences.
    """
    # Pydantic would search all installed packages for plugins, which takes 50 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with safe_output():
        status = _status()
    sys.exit(status)


def _status() -> int:
    """Run the command line and print its error, if any; returns the exit status."""
    try:
        status = app(standalone_mode=False, prog_name="unibind")
    except USAGE_ERROR as error:
        print_usage_error(error)
        return 2
    except UniBindError as error:
        return _failed(own_lines(error))
    except SystemExit as end:  # of the shell's completion
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # `unibind … | head`: the reader has closed the pipe
        sys.stderr.close()
        return 0
    except (MemoryError, ImportError, RuntimeError) as error:
        if not _out_of_memory(error):
            return _bug()
        return _failed(
            "out of memory; end other programs, raise the limit (ulimit -v), or choose a smaller model,"
            " then run again: nothing is lost"
        )
    except OSError as error:
        where = f": {visible(error.filename)}" if error.filename else ""
        return _failed(f"{visible(error.strerror or error)}{where}; fix that and run again: nothing is lost")
    except Exception:
        return _bug()
    if status == _INTERRUPTED:  # typer makes this of Ctrl-C
        print("\nstopped; run the same command again to continue", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _failed(words: str) -> int:
    print(f"error: {words}", file=sys.stderr)
    return 1


def _bug() -> int:
    """Print the traceback of a bug of ours, while the output is still escaped."""
    sys.excepthook(*sys.exc_info())
    return 1


# Messages of libraries: one that cannot be mapped raises ImportError, and torch raises RuntimeError.
_MEMORY_MESSAGES = (
    "failed to map",
    "allocate memory",
    "not enough memory",
    "out of memory",
    "start new thread",
)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY_MESSAGES)


def _run(project: ProjectFile, names: list[str] | None = None) -> list[StageResult]:
    """Run stages (default: the whole plan) and print the result table after a new evaluation."""
    import json

    from data.reads import reading
    from pipeline.run.jobs import plan
    from pipeline.run.runner import run_stages
    from pipeline.table import result_table
    from pipeline.trust import trust_text

    remember(project.path)
    results = run_stages(project, names or plan(project))
    if names is None or "evaluate" in names:
        metrics = project.run / "metrics.json"
        found = json.loads(reading(metrics).read_text(encoding="utf-8"))
        print("\n".join([result_table(found), *trust_text(found, project.predict.use)]))
        print(f"\nmetrics  {_short(metrics)}\nreport   {_short(project.run / 'report.html')}")
    return results


def _short(path: Path) -> str:
    """A path relative to the current folder where it is below it."""
    return visible(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@app.command(rich_help_panel=START)
def demo(
    project: Annotated[Path, typer.Option("--project", "-p", help="The project file.")] = DEMO_PROJECT,
) -> None:
    """Run the whole pipeline on the bundled sample world, offline.

    The tabletop sample world has seven modalities; a small LLM writes its descriptions.
    """
    _run(load(project))
    print(f"look     unibind ui{'' if project == DEMO_PROJECT else f' {_short(project)}'}")


@app.command(rich_help_panel=START)
def init(
    folder: Annotated[
        Path, typer.Argument(help="A folder whose sub-folders are categories, splits or modalities.")
    ],
    project: Annotated[
        Path, typer.Option("--project", "-p", help="The project file to write.")
    ] = DEFAULT_PROJECT,
    modality: Annotated[
        str | None, typer.Option(help="The modality of all files, instead of the one their names show.")
    ] = None,
    by_name: Annotated[
        bool, typer.Option("--by-name", help="The first word of a file's name is its category: dog_1.jpg.")
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links, also to files outside the folder.")
    ] = False,
) -> None:
    """Write a project file and a manifest for a folder of files."""
    from pipeline.init import init_project, project_file

    target = project_file(project)
    for line in init_project(
        folder, target, modality=_modality(modality), by_name=by_name, follow_links=follow_links
    ):
        print(visible(line))
    remember(target)


def _modality(given: str | None) -> Modality | None:
    """A modality by its name. Raises InputError that lists the known ones."""
    from data.modality import MODALITIES

    if given is None:
        return None
    found = next((name for name in MODALITIES if name == given.casefold()), None)
    if found is None:
        raise InputError(
            f"--modality {given!r}: unknown modality; the modalities are {', '.join(MODALITIES)}"
        )
    return found


@app.command(rich_help_panel=START)
def split(
    project: ProjectOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the splits that the manifest has.")] = False,
) -> None:
    """Assign the samples of the manifest to train, val and test.

    60/20/20 in each category; files of one object stay in one split.
    """
    from pipeline.split import split_project

    for line in split_project(load(project), seed=seed, force=force):
        print(visible(line))


@app.command(rich_help_panel=START)
def doctor(
    project: ReadProject = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Ask every node of the cluster that [run] names, too.")
    ] = False,
) -> None:
    """Check packages, models, endpoints and the project file."""
    from pipeline.doctor import examine

    checks = examine(load_if_any(project), engine=engine)
    for check in checks:
        print(visible(check.to_text()))
    if any(check.needed and not check.ok for check in checks):
        raise typer.Exit(1)


@app.command(rich_help_panel=START)
def run(project: ProjectOption = None) -> None:
    """Run every stage of a project; finished stages are skipped."""
    _run(load(project))


@app.command(rich_help_panel=LOOK)
def predict(
    files: Annotated[list[Path], typer.Argument(help="Files of any modality, or folders of them.")],
    project: ReadProject = None,
    categories: Annotated[
        str | None,
        typer.Option(
            help='Zero-shot: "imagenet", a file with one name a line, or names separated by commas.'
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="With --categories: an encoder of texts and media, such as clip:FOLDER (docs/models.md)."
        ),
    ] = None,
    modality: GivenModality = None,
    top: Top = 5,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Recognise files, with the description behind each answer.

    A folder means all files in it.
    Exits with status 1 if a file cannot be recognised; the others are answered.
    """
    from pipeline.predict.records import predictions_csv, predictions_json

    given = [(file, modality) for file in files]
    if encoder is not None and categories is None:
        raise typer.BadParameter("--encoder needs --categories; a project names its own encoders")
    notes, say = _notes(as_json=as_json, as_csv=as_csv)
    if categories is not None:
        from pipeline.predict.zero_shot import predict_zero_shot

        predictions = predict_zero_shot(given, categories, encoder=encoder, top=top, say=say)
    else:
        from pipeline.predict.recognise import predict_files

        predictions = predict_files(load_to_read(project), given, top=top, say=say)
    if as_json or as_csv:
        found = list(predictions)
        print(predictions_json(found, notes) if as_json else predictions_csv(found))
        failed = any(prediction.error is not None for prediction in found)
    else:
        failed = False
        for prediction in predictions:
            print(prediction.to_text(), flush=True)
            failed = failed or prediction.error is not None
    if failed:
        raise typer.Exit(1)


def _notes(*, as_json: bool, as_csv: bool) -> tuple[list[str], Callable[[str], None]]:
    """A list that collects notes, and a function that adds to it and prints the note on stderr."""
    from pipeline.predict.answers import say_on_stderr

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv cannot be combined")
    notes: list[str] = []

    def say(note: str) -> None:
        notes.append(note)
        say_on_stderr(note)

    return notes, say


@app.command(rich_help_panel=LOOK)
def retrieve(
    query: Annotated[str, typer.Argument(help="A file, or a text.")],
    project: ReadProject = None,
    into: Annotated[str | None, typer.Option(help="Only samples of this modality.")] = None,
    modality: GivenModality = None,
    top: Top = 10,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Find the samples nearest to a file or a text, in any modality.

    Words name or describe what is looked for, as texts about categories do. With --modality text they are
    placed as a text sample of the project is: better for words like those of its notes.
    """
    from pipeline.predict.recognise import retrieve_samples
    from pipeline.predict.records import hits_csv, hits_json

    notes, say = _notes(as_json=as_json, as_csv=as_csv)
    hits = retrieve_samples(load_to_read(project), query, modality=modality, into=into, top=top, say=say)
    if as_json or as_csv:
        print(hits_json(query, hits, notes) if as_json else hits_csv(hits))
        return
    for hit in hits:
        print(hit.to_text())


@app.command("ui", rich_help_panel=LOOK)
def browse(
    projects: Annotated[
        list[Path] | None,
        typer.Argument(help="Project files; default: unibind.toml, else the last one run here."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; beyond this machine, a token is asked for.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = PORT,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let the pages start, pause and resume runs.")
    ] = False,
) -> None:
    """Browse projects in a local web app.

    Search, samples, categories, the space, results, runs and SQL. Nothing is loaded from outside,
    and without --host no other machine can reach it (docs/ui.md).
    """
    given: list[Path | None] = [*projects] if projects else [None]
    files = [load_to_read(project) for project in given]
    from pipeline.ui.serve import serve

    serve(files, host=host, port=port, allow_run=allow_run, say=lambda line: print(line, flush=True))


app.add_typer(kb_app, name="kb", rich_help_panel=LOOK)


@app.command(rich_help_panel=STAGE)
def describe(
    project: ProjectOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; forecast requests, tokens and dollars.")
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse", help="If only max_tokens grew, repeat only requests that the old limit cut off."
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Repeat requests that failed for good in earlier runs."),
    ] = False,
) -> None:
    """Write the descriptions of categories and samples with an LLM."""
    from kb_builder.describe.dry_run import forecast, to_text
    from pipeline.run.runner import forget_failed, run_stages

    checked = load(project)
    remember(checked.path)
    if reuse:
        checked = checked.with_reuse()
    if retry_failed:
        print(f"{forget_failed(checked):,} failed requests will be repeated")
    if dry_run:
        run_stages(checked, ["world", "ingest"])
        categories, samples = checked.describe.categories, checked.describe.samples
        encoder = checked.encode.text
        print(to_text(forecast(checked.kb, checked.data_root, categories, samples, encoder=encoder)))
    else:
        run_stages(checked, [*DESCRIBING])


@app.command(rich_help_panel=STAGE)
def encode(
    project: ProjectOption = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="I/N",
            help="Make only share I of N of the parts, as one job of an array; then run it without --part.",
        ),
    ] = None,
) -> None:
    """Encode texts and samples into vectors."""
    if part is None:
        _run(load(project), ["encode"])
        return
    from pipeline.run.part_job import make_share, parse_share, tell_share

    share = parse_share(part)
    tell_share(share, make_share(load(project), share))


@app.command(rich_help_panel=STAGE)
def localize(project: ProjectOption = None) -> None:
    """Choose each category's embedding centers."""
    _run(load(project), ["localize"])


@app.command(rich_help_panel=STAGE)
def train(project: ProjectOption = None) -> None:
    """Localize, train the alignment heads, evaluate and report.

    In several processes: torchrun --nproc-per-node 2 --no-python unibind train
    """
    from trainer.align.processes import is_follower, leave_process_group

    if is_follower():
        from trainer.align.train import train_as_follower

        checked = load(project)
        train_as_follower(checked.kb, checked.run, checked.train)
        return
    results = _run(load(project), ["localize", "train", "evaluate", "report"])
    leave_process_group()
    for result in results:
        if "not_trained" in result.summary:
            raise NothingToTrainError(result.summary["not_trained"])


@app.command(rich_help_panel=MEASURE)
def evaluate(project: ProjectOption = None) -> None:
    """Measure recognition and retrieval; write the report."""
    _run(load(project), ["evaluate", "report"])


@app.command(rich_help_panel=MEASURE)
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or project files; two or more.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare runs on the same samples, with paired tests."""
    from pipeline.compare.runs import compare as compared
    from pipeline.compare.runs import open_run
    from pipeline.compare.text import comparison_text

    comparison = compared([open_run(run) for run in runs])
    print(comparison.as_json() if as_json else comparison_text(comparison))


@app.command(rich_help_panel=MEASURE)
def study(
    file: Annotated[Path, typer.Argument(help="A study file, such as ablation.toml.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of processes; default: one per core.")
    ] = None,
) -> None:
    """Run an ablation study: vary parts of the method, over seeds."""
    from pipeline.study.file import load_study
    from pipeline.study.run import run_study
    from pipeline.study.text import study_text

    checked = load_study(file)
    print(study_text(run_study(checked, jobs=jobs)))
    folder = checked.project.run / "studies" / checked.file.name
    print(f"\nnumbers  {_short(folder / 'study.json')}\npage     {_short(folder / 'study.html')}")


app.command(rich_help_panel=MEASURE)(reproduce)
app.command("fake-openai", rich_help_panel=OPERATE)(fake_openai)
app.add_typer(models_app, name="models", rich_help_panel=OPERATE)
