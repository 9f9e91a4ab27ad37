"""Ask every prompt of a file through bespokelabs-curator; runs in curator's own virtual environment.

    curator_run.py PROMPTS BASE_URL IN_FLIGHT FOLDER

PROMPTS holds one JSON list of messages a line. Prints the number of answers as its last line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

prompts, base_url, in_flight, folder = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
package = importlib.util.find_spec("litellm")
assert package is not None and package.submodule_search_locations is not None
# Read at import: no telemetry, no animated display (it costs time), prices from the package.
os.environ |= {
    "HOME": str(folder),
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "CURATOR_DISABLE_CACHE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # curator counts tokens with a file that it would download; litellm brings the same one with it
    "TIKTOKEN_CACHE_DIR": f"{package.submodule_search_locations[0]}/litellm_core_utils/tokenizers",
    "OPENAI_API_KEY": "none",
}

from bespokelabs import curator  # noqa: E402

NO_LIMIT = 10**9


class Write(curator.LLM):
    """Sends a row's messages as they are and keeps the text."""

    def prompt(self, input: dict[str, Any]) -> list[dict[str, str]]:
        """The row's messages."""
        return json.loads(input["messages"])

    def parse(self, input: dict[str, Any], response: str) -> dict[str, str]:
        """The row with its text."""
        return {"messages": input["messages"], "text": response}


if __name__ == "__main__":
    rows = [{"messages": line} for line in prompts.read_text(encoding="utf-8").splitlines()]
    llm = Write(
        model_name="fake-1",
        backend="openai",
        generation_params={"temperature": 0.9, "top_p": 0.95, "max_tokens": 48},
        backend_params={
            "base_url": base_url,
            "max_concurrent_requests": in_flight,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT,
        },
    )
    result = llm(rows, working_dir=str(folder))
    print(sum(bool(text) for text in result.dataset["text"]))
