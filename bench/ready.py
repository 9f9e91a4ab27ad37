"""What the process that commands are forked from does once for all of them, when it imports this.

The source of the stages is hashed, which takes a second; and what is loaded is no garbage: the collector of
the forked processes need not look through it.
"""

from __future__ import annotations

import atexit
import gc

from pipeline.run.code import code_hash
from pipeline.run.jobs import STAGES

for stage in STAGES:
    code_hash(stage.run)
gc.freeze()
atexit.register(gc.unfreeze)
