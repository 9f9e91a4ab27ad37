"""`unibind kb`: SQL over a knowledge base's views, typed at a prompt or piped in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import duckdb

from data.errors import InputError, UniBindError
from data.show import visible
from kb_builder.browse.answer import QueryResult
from kb_builder.browse.query import connect, sql
from kb_builder.browse.sources import require_text
from kb_builder.browse.views import VIEWS, script

_HELP = """\
Type SQL, over as many lines as you like, up to a semicolon; only what reads is run. Or one of

  .tables   the views and macros
  .views    the SQL of the views, to be used in any DuckDB
  .help     this text
  .quit     leave (so does Ctrl-D); Ctrl-C ends what runs

Try: FROM v_cost;   SELECT * FROM v_nearest('a red ball', k := 3);   DESCRIBE v_descriptions;"""
_QUIT = {".quit", ".exit", ".q"}


def interact(kb: Path) -> None:
    """Read SQL from the terminal and print answers until `.quit` or Ctrl-D; errors are told and forgiven.

    Prints the SQL of the views to stderr first. Raises KnowledgeBaseError where `kb` is no knowledge base.
    """
    with connect(kb, vectors=False):  # what is wrong with the knowledge base is told before anyone types
        pass
    print(f"{script(kb)}\n\n{_HELP}\n", file=sys.stderr)
    with _history():
        typed = ""
        while True:
            try:
                line = input("   > " if typed.strip() else "kb > ")
                if not typed.strip() and line.strip() in _QUIT:
                    return
                statements, typed = _advance(typed, line + "\n")
                for statement in statements:
                    print(_run(kb, statement))
            except EOFError:
                print()
                return
            except UniBindError as error:
                print(f"error: {visible(error)}", file=sys.stderr)
                typed = ""
            except KeyboardInterrupt:
                print("\ninterrupted", file=sys.stderr)
                typed = ""


def run_script(kb: Path, lines: TextIO) -> None:
    """Run the statements of a stream and print their answers, each as soon as its last line is there.

    The last one needs no semicolon. The first error ends the script: raises InputError or
    KnowledgeBaseError.
    """
    for number, statement in enumerate(_statements(lines)):
        print("\n" * (number > 0) + str(_run(kb, statement)), flush=True)


def _statements(lines: TextIO) -> Iterator[str]:
    typed = ""
    try:
        for line in lines:
            if not typed.strip() and line.strip() in _QUIT:
                return
            statements, typed = _advance(typed, line)
            yield from statements
    except UnicodeDecodeError:
        raise InputError("what comes through the pipe is not UTF-8") from None
    if _tokens(typed):
        yield typed


def _advance(typed: str, line: str) -> tuple[list[str], str]:
    """The statements that are whole with this line, and what is left over of it."""
    require_text(line)
    if not typed.strip() and line.lstrip().startswith("."):
        return [line.strip()], ""
    raw = (typed + line).encode()  # DuckDB counts in bytes
    ends = [start + 1 for start, kind in _tokens(typed + line) if raw[start : start + 1] == b";"]
    pieces = [raw[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return [piece for piece in pieces if len(_tokens(piece)) > 1], raw[ends[-1] if ends else 0 :].decode()


def _tokens(text: str) -> list[tuple[int, object]]:
    """The first byte and the kind of each token; a string, a name in quotes and a comment are one each."""
    return [token for token in duckdb.tokenize(text) if token[1] != duckdb.token_type.comment]


def _run(kb: Path, statement: str) -> QueryResult | str:
    """The answer to a statement or a dot command. Each opens the knowledge base anew: a run may go on."""
    if not statement.startswith("."):
        return sql(kb, statement)
    if statement == ".tables":
        return QueryResult(("name", "holds"), tuple(VIEWS.items()))
    if statement == ".views":
        return script(kb)
    if statement == ".help":
        return _HELP
    raise InputError(f"there is no command {statement!r}; the commands are .tables, .views, .help and .quit")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Editing of lines, and lines of earlier sessions, where Python has readline and the disk takes them."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = state / "unibind" / "kb_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
