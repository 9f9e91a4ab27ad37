"""data.manifest.ids: which names are one category, and ids that no two categories share."""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.manifest.ids import best_spelling, category_ids, is_blank, name_key, normal_spelling, notes_on_names

# Letters, signs and invisible characters that fall together under one normalisation or another.
_TRICKY = "aAbB12 .,-_/+#*|&()'’éeßsSſİıiＡ²ªﬁ\u0301\u0327\u093f\u0915\u200b\u200d\ufe0f\u00a0\u2003\t😀❤犬"
_NAMES = st.one_of(
    st.text(_TRICKY, min_size=1, max_size=6),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8),
).filter(lambda name: bool(name_key(name)))


def ids_of(*names: str) -> list[str]:
    ids = category_ids(map(name_key, names))
    return [ids[name_key(name)] for name in names]


@given(st.lists(_NAMES, min_size=1, max_size=12), st.randoms())
@settings(max_examples=300, deadline=None)
def test_ids_are_injective_and_independent_of_order(names: list[str], random: object) -> None:
    """As many ids as keys, and the same ones whatever order the names come in."""
    keys = [name_key(name) for name in names]
    ids = category_ids(keys)
    assert len(set(ids.values())) == len(set(keys))
    random.shuffle(keys)  # type: ignore[attr-defined]
    assert category_ids(keys) == ids


@given(st.lists(_NAMES, min_size=1, max_size=12), _NAMES)
@settings(max_examples=300, deadline=None)
def test_another_name_changes_only_ids_of_names_with_signs_between_words(names: list[str], more: str) -> None:
    """Names of words and single spaces, and names with a suffix, keep their ids when a name is added."""
    before = category_ids(map(name_key, names))
    after = category_ids(map(name_key, [*names, more]))
    for key, category_id in before.items():
        if after[key] != category_id:
            assert not all(part.isalnum() for part in key.split())
            assert "--" not in category_id
            assert "--" in after[key]


@given(_NAMES)
@settings(max_examples=300, deadline=None)
def test_the_key_forgets_normal_form_case_and_white_space_alone(name: str) -> None:
    """A name in NFD, in other case and with other spaces has the same key; the key is its own key."""
    key = name_key(name)
    assert name_key(key) == key
    for form in ("NFC", "NFD"):
        assert name_key(unicodedata.normalize(form, name)) == key
    assert name_key(f"\u2003{name} \n") == key
    assert name_key(name.casefold()) == key
    assert name_key(normal_spelling(name)) == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dog", "dog "),
        ("Barn owl", "barn \u00a0 OWL"),
        ("café", "CAFE\u0301"),
        ("Straße", "STRASSE"),
        ("犬\u3000", "犬"),
    ],
)
def test_names_that_are_one(one: str, other: str) -> None:
    """Case, normal form and white space tell no categories apart."""
    assert name_key(one) == name_key(other)


_APART = (
    *("C", "C++", "C#", "C--", "C*", "c.", ".c", "(c)", "+", "-", "±", "#", "*", "?", "!", "%", "&"),
    *(
        "1",
        "-1",
        "+1",
        "1.0",
        "10",
        "1,0",
        "01",
        "1.5",
        "15",
        "1-5",
        "1/5",
        "²",
        "2",
        "½",
        "1⁄2",
        "#1",
        "1st",
    ),
    *("ice cream", "ice-cream", "ice_cream", "ice/cream", "icecream", "ice.cream", "ice, cream", "ice|cream"),
    *(
        "dog",
        "dog\u200b",
        "\ufeffdog",
        "do\u00adg",
        "ｄｏｇ",
        "dóg",
        "dog!",
        "dog?",
        "dog's",
        "dogs'",
        "(dog)",
    ),
    *("😀", "😃", "❤", "❤\ufe0f", "👩", "👩\u200d🚀", "👍", "👍🏽", "犬", "猫", "कि", "का", "क", "ไก่", "ไก"),
    *(
        "résumé",
        "resume",
        "ı",
        "i",
        "λ",
        "ƛ",
        "Å s",
        "A s",
        "x²",
        "x2",
        "H₂O",
        "H2O",
        "№ 1",
        "no 1",
        "™",
        "tm",
    ),
    *(
        "<",
        ">",
        "≤",
        "≥",
        "=",
        "≠",
        "→",
        "←",
        "°C",
        "°F",
        "♀",
        "♂",
        "$",
        "€",
        "A+",
        "A-",
        "A",
        "A/B",
        "A B",
        "AB",
    ),
)


def test_names_that_look_alike_stay_apart() -> None:
    """Signs, symbols, numbers, emoji, scripts, accents and invisible characters all tell categories apart."""
    keys = {name_key(name) for name in _APART}
    assert len(keys) == len(_APART)
    ids = category_ids(keys)
    assert len(set(ids.values())) == len(_APART)
    for one, other in combinations(_APART, 2):
        assert len(set(ids_of(one, other))) == 2, (one, other)
        assert ids_of(one, other) == ids_of(other, one)[::-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Barn owl", "barn-owl"),
        ("dog", "dog"),
        ("car_horn", "car-horn"),
        ("T-shirt", "t-shirt"),
        ("vehicles/autos", "vehicles-autos"),
        ("jack-o'-lantern", "jack-o-lantern"),
        ("police car (siren)", "police-car-siren"),
        ("犬", "犬"),
        ("हिन्दी", "हिन्दी"),
        ("7", "7"),
        ("C++", "c--cedb1bac7e"),
    ],
)
def test_ids_that_must_not_change(name: str, expected: str) -> None:
    """Knowledge bases on people's disks hold these ids: a change here is a change of all of them."""
    assert ids_of(name) == [expected]


def test_where_plain_forms_meet_the_one_with_spaces_keeps_it() -> None:
    """The others get a suffix; where none is written with spaces, all of them do."""
    spaced, hyphen, under = ids_of("ice cream", "ice-cream", "ice_cream")
    assert spaced == "ice-cream"
    assert {hyphen[:11], under[:11]} == {"ice-cream--"}
    assert hyphen != under
    assert Counter("--" in each for each in ids_of("ice-cream", "ice_cream")) == {True: 2}


def test_the_shown_spelling_depends_on_the_spellings_alone() -> None:
    """The one with the fewest capitals is shown, in NFC and with single spaces."""
    assert best_spelling(["DOG", "Dog", "dog "]) == best_spelling(["dog ", "DOG", "Dog"]) == "dog"
    assert best_spelling(["Eiffel  Tower", "EIFFEL TOWER"]) == "Eiffel Tower"


def test_names_that_show_nothing() -> None:
    """Only invisible characters are no name; one beside a letter is."""
    assert is_blank("\u200b \ufeff")
    assert not is_blank("\u200bx")
    assert not is_blank("+")


def test_what_is_said_of_names() -> None:
    """What was joined, what looks alike, what cannot be seen and what may mean nothing: a line each."""
    spellings = {"dog": {"Dog", "dog "}, "cat": {"cat"}, "nan": {"nan"}}
    names = ["dog", "cat", "nan", "C", "C++", "1", "1.0", "cat\u200b"]
    joined, alike, hidden, nothing = notes_on_names(spellings, {name_key(name): name for name in names})
    assert joined == ("1 category in several spellings: 'Dog' and 'dog ' are read as one category 'dog'")
    assert alike.startswith("6 categories differ from another only in signs, zeros, invisible")
    assert "'C' and 'C++'" in alike
    assert "'1' and '1.0'" in alike
    assert r"'cat' and 'cat\u200b'" in alike
    assert hidden == r"1 category name with invisible characters: 'cat\u200b'"
    assert nothing.startswith("'nan' is read as a category")
    assert notes_on_names({}, {"barn owl": "barn owl", "woman astronaut 👩\u200d🚀": "x"}) == []


def test_long_notes_name_three_and_count_the_rest() -> None:
    """A note stays one line, however many names it is about."""
    names = [f"{letter}{sign}" for letter in "abcdefgh" for sign in ("", "+", "#", "*", "!", "?")]
    (alike,) = notes_on_names({}, {name: name for name in names})
    assert alike.startswith("48 categories")
    assert alike.endswith("; and 5 more")
    assert "'a', 'a!', 'a#' and 3 more" in alike


@pytest.mark.parametrize(
    "name", ["nan", "NA", "#N/A", "\\N", "None", "null", "#DIV/0!", "n/a", "<NA>", "Nil"]
)
def test_words_for_nothing_are_noted(name: str) -> None:
    """What pandas, R, Excel and databases write for a missing value is hardly meant as a category."""
    (note,) = notes_on_names({}, {name_key(name): name})
    assert note == f"{name!r} is read as a category; leave the cell empty for samples without one"


def test_letters_that_look_the_same_are_noted() -> None:
    """A Cyrillic letter within a Latin word, and a name written in another script throughout."""
    names = ["dog", "d\u043eg", "COP", "\u0421\u041e\u0420", "\u03b2-carotene", "\u0434\u043e\u043c"]
    alike, mixed = notes_on_names({}, {name_key(name): name for name in names})
    assert r"'dog' and 'd\u043eg'" in alike
    assert r"'COP' and '\u0421\u041e\u0420'" in alike
    assert mixed == r"1 category name with Latin and Cyrillic letters in one word: 'd\u043eg'"


@pytest.mark.parametrize("name", ["1.23457E+11", "1E+05", "2-Sep", "Mar-01", "2026-03-01 00:00:00"])
def test_names_that_a_spreadsheet_rewrote_are_noted(name: str) -> None:
    """Excel makes dates of MARCH1 and 2-9, and one number of long ones that differ."""
    (note,) = notes_on_names({}, {name_key(name): name})
    assert note.startswith("1 category name that a spreadsheet may have rewritten")
    assert notes_on_names({}, {"march": "March", "e5": "E5", "7": "7"}) == []


def test_names_that_were_decoded_wrongly_are_noted() -> None:
    """UTF-8 that a program took for Windows-1252; the same letters where they are meant are fine."""
    names = ["cafÃ©", "café", "naïve", "Ã", "dogâ€™s tail", "caf\ufffd", "dog\x92s"]
    (note,) = notes_on_names({}, {name_key(name): name for name in names})
    assert note.startswith("4 category names decoded wrongly by an earlier program: 'cafÃ©' was 'café'; 'caf")
    for one in ("cafÃ©", "dogâ€™s tail", "caf\ufffd", "dog\x92s"):
        assert notes_on_names({}, {name_key(one): one})
