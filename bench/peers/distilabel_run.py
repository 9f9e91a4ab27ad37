"""Ask every prompt of a file through distilabel; runs in distilabel's own virtual environment.

    distilabel_run.py PROMPTS BASE_URL IN_FLIGHT FOLDER

PROMPTS holds one JSON list of messages a line. Prints the number of answers as its last line.
distilabel asks a batch at once and waits for all of it: the size of a batch is what is in flight. Two
replicas of half the size were its fastest way here (257 requests/s against 181 of one).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

prompts, base_url, in_flight, folder = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
REPLICAS = 2
os.environ |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "DISTILABEL_LOG_LEVEL": "WARNING"}

from distilabel.models import OpenAILLM  # noqa: E402
from distilabel.pipeline import Pipeline  # noqa: E402
from distilabel.steps import LoadDataFromDicts, StepResources  # noqa: E402
from distilabel.steps.tasks import ChatGeneration  # noqa: E402

if __name__ == "__main__":
    rows = [{"messages": json.loads(line)} for line in prompts.read_text(encoding="utf-8").splitlines()]
    with Pipeline(name="bench", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=in_flight)
        write = ChatGeneration(
            llm=OpenAILLM(
                model="fake-1",
                base_url=base_url,
                api_key="none",
                generation_kwargs={"temperature": 0.9, "top_p": 0.95, "max_new_tokens": 48},
            ),
            input_batch_size=in_flight // REPLICAS,
            resources=StepResources(replicas=REPLICAS),
            add_raw_output=False,
            add_raw_input=False,
        )
        load >> write
    distiset = pipeline.run(use_cache=False)
    print(sum(bool(text) for text in distiset["default"]["train"]["generation"]))
