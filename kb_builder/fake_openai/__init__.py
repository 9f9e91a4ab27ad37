"""A server that speaks OpenAI's API and writes for free: for rehearsals, tests and benchmarks.

It knows chat completions (text, pictures, sound, video, JSON schemas), files and batches. What it answers
depends on the request alone; how it fails is scripted, and depends on the request and on how often it was
asked. `GET /_fake/stats` tells what it was asked, `POST /_fake/reset` makes it forget.
"""

from kb_builder.fake_openai.server import serve_fake
from kb_builder.fake_openai.settings import HOSTILE, LASTING, PASSING, FakeSettings, all_faults

__all__ = ["HOSTILE", "LASTING", "PASSING", "FakeSettings", "all_faults", "serve_fake"]
