"""Ask every prompt of a file through our own scheduler, ledger and client; each answer is committed.

    ours_run.py PROMPTS BASE_URL IN_FLIGHT FOLDER

PROMPTS holds one JSON list of messages a line. Prints the number of answers as its last line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from kb_builder.ask.ledger import open_ledger
from kb_builder.ask.request import Request
from kb_builder.ask.scheduler import open_asker
from kb_builder.describers.choose import openai_client
from kb_builder.settings import Asking

MODEL = "fake-1"
CALLER = 50  # requests of one caller: as many as a category asks for at a time


async def answers(prompts: Path, base_url: str, in_flight: int, folder: Path) -> int:
    """How many prompts were answered."""
    client = openai_client(model=MODEL, base_url=base_url, api_key_env="NO_KEY_NEEDED")
    requests = [
        Request(
            endpoint=client.endpoint,
            model=MODEL,
            messages=tuple((each["role"], each["content"]) for each in json.loads(line)),
            temperature=0.9,
            top_p=0.95,
            max_tokens=48,
            seed=None,
            sample_index=0,
        )
        for line in prompts.read_text(encoding="utf-8").splitlines()
    ]
    settings = Asking(model=MODEL, base_url=base_url, concurrency=in_flight)
    try:
        async with (
            open_ledger(folder) as ledger,
            open_asker(client, ledger, settings=settings, run_id="bench") as asker,
        ):
            groups = [requests[start : start + CALLER] for start in range(0, len(requests), CALLER)]
            entries = await asyncio.gather(*map(asker.ask, groups))
    finally:
        await client.close()
    return sum(entry is not None and entry.answer is not None for group in entries for entry in group)


if __name__ == "__main__":
    print(asyncio.run(answers(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
