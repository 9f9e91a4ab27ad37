"""The SQL shell of `unibind kb`: statements typed at a prompt or read from a pipe."""

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
from kb_builder.browse.sources import require_utf8
from kb_builder.browse.views import VIEWS, script

_HELP = """\
Type SQL, over as many lines as you like, up to a semicolon; only statements that read are run. Or one of

  .tables   the views and macros
  .views    the SQL of the views, for use in any DuckDB
  .help     this text
  .quit     leave (so does Ctrl-D); Ctrl-C interrupts a query

Try: FROM v_cost;   SELECT * FROM v_nearest('a red ball', k := 3);   DESCRIBE v_descriptions;"""
_QUIT = {".quit", ".exit", ".q"}


def interact(kb: Path) -> None:
    """Read SQL from the terminal and print results until `.quit` or Ctrl-D; an error does not end the shell.

    Prints the SQL of the views to stderr first. Raises KnowledgeBaseError if `kb` is not a knowledge base.
    """
    with connect(kb, vectors=False):  # a damaged knowledge base is reported before the first prompt
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
    """Run the statements of a stream and print each result as soon as the statement is complete.

    The last statement needs no semicolon. The first error ends the script: raises InputError or
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
        raise InputError("the SQL from the pipe is not UTF-8; convert it first") from None
    if _tokens(typed):
        yield typed


def _advance(typed: str, line: str) -> tuple[list[str], str]:
    """The statements that this line completes, and the rest of the input."""
    require_utf8(line)
    if not typed.strip() and line.lstrip().startswith("."):
        return [line.strip()], ""
    raw = (typed + line).encode()  # DuckDB counts in bytes
    ends = [start + 1 for start, kind in _tokens(typed + line) if raw[start : start + 1] == b";"]
    pieces = [raw[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return [piece for piece in pieces if len(_tokens(piece)) > 1], raw[ends[-1] if ends else 0 :].decode()


def _tokens(text: str) -> list[tuple[int, object]]:
    """The first byte and the kind of each token but comments; a string or a quoted name is one token."""
    return [token for token in duckdb.tokenize(text) if token[1] != duckdb.token_type.comment]


def _run(kb: Path, statement: str) -> QueryResult | str:
    """The result of a statement or a dot command. Each opens the knowledge base, which a run may change."""
    if not statement.startswith("."):
        return sql(kb, statement)
    if statement == ".tables":
        return QueryResult(("name", "holds"), tuple(VIEWS.items()))
    if statement == ".views":
        return script(kb)
    if statement == ".help":
        return _HELP
    raise InputError(f"unknown command {statement!r}; the commands are .tables, .views, .help and .quit")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing and a history across sessions, if Python has readline and the file can be written."""
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
