"""Fake server of OpenAI's API, for rehearsals, tests and benchmarks without cost.

It has chat completions (text, pictures, sound, video, JSON schemas), files and batches. Its answers depend on
the request alone. Its failures are scripted, and depend on the request and on how often it was sent. `GET
/_fake/stats` returns its counters, `POST /_fake/reset` resets them.
"""

from kb_builder.fake_openai.server import serve_fake
from kb_builder.fake_openai.settings import HOSTILE, LASTING, PASSING, FakeSettings, all_faults

__all__ = ["HOSTILE", "LASTING", "PASSING", "FakeSettings", "all_faults", "serve_fake"]
