"""Prefect's own server is asked directly, whatever proxy is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import http.server, threading
import flows, httpx, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"here")
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
for host in ("127.0.0.1", "localhost"):
    print(httpx.get(f"http://{host}:{server.server_port}").text)
print(os.environ["no_proxy"], os.environ["NO_PROXY"] == os.environ["no_proxy"])
"""


def test_flows_spare_loopback_the_proxy() -> None:
    """Importing them is enough, for Prefect's client in this process and in those that it starts."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "intranet"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["here", "here", "intranet,127.0.0.1,localhost,::1 True"]
