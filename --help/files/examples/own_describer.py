"""Your own describer: any server of chat completions over HTTP. This one makes texts by a rule.

    python examples/own_describer.py unibind.toml

The pipeline asks it as it asks a hosted model: answers are recorded before they are used, failures are
retried, texts pass the same gates, and no answer is asked for twice. Put your model into `write`. A describer
without HTTP is a class with two methods (docs/extending.md).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline import Project

SIGHTS = ("stands on a wooden table", "lies in the grass", "hangs from a nail", "floats on dark water")
LIGHTS = ("in the evening sun", "under a street lamp", "on a foggy morning")


def write(question: str, seed: int) -> str:
    """One text for one question; requests that ask the same again differ in their seed."""
    name = question.split('"')[1]  # the prompts put the category's name into quotes
    return f"The {name} {SIGHTS[seed % 4]} {LIGHTS[seed % 3]}."


class _Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions, the only call there is."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = write(request["messages"][-1]["content"], request["seed"])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = json.dumps({"object": "chat.completion", "model": "rule-1", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the pipeline shows its progress."""


@contextmanager
def serving(port: int) -> Iterator[str]:
    """The describer on a port of this machine; gives its base_url."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main(project_file: Path, port: int = 8399) -> None:
    # Always the same port: the address is part of what makes two requests the same.
    with serving(port) as url:
        # As if these lines stood in the project file, under [describe.categories].
        section = {"describer": "openai", "model": "rule-1", "base_url": url, "items": 1}
        project = Project.open(project_file, changes={"describe": {"categories": section}})
        project.run(until="describe-categories")
    print(project.kb.sql("SELECT category_id, status, text FROM v_descriptions WHERE provider = 'openai'"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
