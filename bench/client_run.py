"""Ask every prompt of a file through `ChatClient` alone: no scheduler, no ledger.

    client_run.py PROMPTS BASE_URL IN_FLIGHT FOLDER

PROMPTS holds one JSON list of messages a line. Prints the number of answers as its last line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.request import Request
from kb_builder.describers.choose import openai_client

MODEL = "fake-1"


async def answers(prompts: Path, base_url: str, in_flight: int) -> int:
    """How many prompts were answered."""
    client = openai_client(model=MODEL, base_url=base_url, api_key_env="NO_KEY_NEEDED")
    lines = iter(prompts.read_text(encoding="utf-8").splitlines())
    try:
        return sum(await asyncio.gather(*(_work(client, lines) for _ in range(in_flight))))
    finally:
        await client.close()


async def _work(client: ChatClient, lines: Iterator[str]) -> int:
    done = 0
    for line in lines:
        reply = await client.answer(
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
        )
        done += bool(reply.body)
    return done


if __name__ == "__main__":
    print(asyncio.run(answers(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
