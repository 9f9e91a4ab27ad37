"""Which texts are kept, and why others are not."""

from __future__ import annotations

import random
import re
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.sample import Category
from kb_builder.fake_openai.texts import REFUSALS, sentence
from kb_builder.gates.duplicates import COSINE_FROM_JACCARD, Floats, TrigramIndex, read_grams, trigrams
from kb_builder.gates.gate import Candidate, CategoryGate, Rules, refusal_in
from kb_builder.gates.names import WORD_LISTS, category_names, normalise, stem
from kb_builder.gates.verdict import Verdict

RULES = Rules(token_limit=256)


def categories(*names: str) -> list[Category]:
    return [Category(category_id=name, name=name) for name in names]


GRID = categories(
    *(" ".join(pair) for pair in product(["wooden", "steel", "glass"], ["sphere", "cone", "torus"]))
)
# As they stand in ImageNet's list of a thousand.
IMAGENET = [
    Category("collie", "collie", aliases=("Scotch collie",)),
    *categories(
        "Border collie", "golden retriever", "red fox, Vulpes vulpes", "grey fox, gray fox", "red wolf"
    ),
    *categories(
        "timber wolf", "water bottle", "wine bottle", "water tower", "ear, spike", "goldfish", "wool, woolen"
    ),
    *categories("tiger cat", "tiger shark", "Egyptian cat", "wall clock", "digital clock", "digital watch"),
]


def gate(of: str, among: list[Category], rules: Rules = RULES) -> CategoryGate:
    return CategoryGate(category_names(among)[of], rules)


def judge(text: str | None, *, of: str, among: list[Category], **given: bool | str) -> Verdict:
    [verdict] = gate(of, among).judge([Candidate("r", text, n_tokens=20, **given)])  # type: ignore[arg-type]
    return verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The wooden sphere rolls over the table.", "ok"),
        ("A sphere of wood rolls over the table.", "ok"),
        ("Wooden spheres roll over the table.", "ok"),
        ("The sphere rolls over the table.", "no_name"),
        ("It rolls over the table.", "no_name"),
        ("The wooden sphere shines like steel.", "other_name"),
        ("The wooden sphere has a glassy surface.", "other_name"),
        ("The wooden sphere is a cone seen from the side.", "other_name"),
        ("The wooden sphere and its cones.", "other_name"),
        ("I'm sorry, I cannot describe the wooden sphere.", "refusal"),
        ("As an AI, I have seen no wooden sphere.", "refusal"),
        ("Die Wooden Sphere ist eine runde Kugel aus Holz.", "wrong_language"),
        ("The wooden sphere is a type of object that is used for many things.", "boilerplate"),
        (None, "unparsed"),
    ],
)
def test_a_grid_of_names(text: str | None, verdict: str) -> None:
    """Where materials are crossed with shapes, a text names its own pair and no other material or shape."""
    assert judge(text, of="wooden sphere", among=GRID).status == verdict


@pytest.mark.parametrize(
    ("category", "text", "verdict"),
    [
        ("collie", "The collie is a dog with long ears and a woolen coat, fond of water.", "ok"),
        ("goldfish", "The goldfish swims in water, red and golden like a fox.", "ok"),
        ("red fox, Vulpes vulpes", "The red fox is smaller than a grey wolf.", "ok"),
        ("water bottle", "The water bottle looks like a wine glass from the wall.", "ok"),
        ("collie", "The Scotch collie herds sheep.", "ok"),
        ("Border collie", "The Border collie herds sheep.", "ok"),
        ("collie", "The collie looks like a golden retriever.", "other_name"),
        ("collie", "The collie looks like a Border collie.", "other_name"),
        ("red fox, Vulpes vulpes", "The red fox looks like a gray fox.", "other_name"),
        ("wall clock", "The wall clock beside the digital watch.", "other_name"),
    ],
)
def test_names_without_a_grid(category: str, text: str, verdict: str) -> None:
    """Among ordinary names only another full name of two or more words names another thing."""
    assert judge(text, of=category, among=IMAGENET).status == verdict


def test_one_exchange_is_no_grid() -> None:
    """red/grey change a fox into a fox once; from the second time on they are a grid."""
    fox = categories("red fox", "grey fox")
    text = "The red fox has a grey tail."
    assert judge(text, of="red fox", among=fox).status == "ok"
    grid = [*fox, *categories("red squirrel", "grey squirrel")]
    assert judge(text, of="red fox", among=grid) == Verdict("other_name", reason="names 'grey'")


def test_single_names_count_as_one_context() -> None:
    """red/grey, exchanged once in a name and once as names of their own, are a grid as well."""
    names = categories("red fox", "grey fox", "red", "grey", "blue")
    assert judge("The red fox has a grey tail.", of="red fox", among=names).status == "other_name"
    assert judge("The red fox has a blue tail.", of="red fox", among=names).status == "ok"


def test_ten_thousand_names_take_no_noticeable_work() -> None:
    """A grid of 100 × 100 has 198 rivals for each name, and not one word of the own name among them."""
    names = categories(*(f"colour{a}q thing{b}q" for a in range(100) for b in range(100)))
    found = category_names([*names, *categories(*(f"single{n}" for n in range(5000)))])["colour3q thing4q"]
    assert len(found.rival_words) == 2 * 99
    assert not found.rival_words & {word for own in found.own for word in own}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("The wolf howls at the pale moon.", "ok"),
        ("Grey wolves howl at the pale moon.", "ok"),
        ("The moon over the hills is pale.", "no_name"),
    ],
)
def test_plurals_name_their_category(text: str, status: str) -> None:
    """A text about wolves is about the wolf."""
    assert judge(text, of="wolf", among=categories("wolf", "dog")).status == status


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"),
        ("bus", "buses"),
        ("box", "boxes"),
        ("church", "churches"),
        ("berry", "berries"),
        ("pie", "pies"),
        ("city", "cities"),
        ("glass", "glasses"),
        ("mouse", "mice"),
        ("knife", "knives"),
        ("fireman", "firemen"),
        ("torus", "tori"),
        ("potato", "potatoes"),
        ("shoe", "shoes"),
        ("glove", "gloves"),
        ("horse", "horses"),
        ("cactus", "cacti"),
        ("wooden", "wood"),
        ("spherical", "spheres"),
    ],
)
def test_stems_meet(one: str, many: str) -> None:
    """The forms of a word have one stem."""
    assert stem(one) == stem(many)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "cart"),
        ("bus", "bush"),
        ("glass", "glue"),
        ("mouse", "moose"),
        ("cube", "cub"),
        ("news", "newt"),
    ],
)
def test_stems_do_not_meet(one: str, other: str) -> None:
    """Different words have different stems."""
    assert stem(one) != stem(other)


REFUSED = """
I'm sorry, but I can't help with that.
I am unable to describe this dog.
As a large language model, I have never heard a dog bark.
Unfortunately, I do not have enough information about the dog.
I cannot see the image of the dog.
I can’t provide a description of the dog.
Sorry, the dog is not something I can write about.
I don't know what a dog sounds like.
Could you please provide more details about the dog?
Please clarify which dog you mean.
No image was provided, so the dog stays unknown.
My apologies, the dog is unclear to me.
I would need more context about the dog.
I must decline to write about the dog.
This request violates our content policy about dogs.
We are unable to assist with the dog.
I'm just an AI and I have no dog.
I am not able to physically touch a dog.
""".strip().splitlines()
TOLD = """
The dog cannot be seen at night.
A black dog is unable to hide in fresh snow.
The dog does not bark when strangers provide food.
Owners are sorry to leave the dog alone.
The sorry-looking dog sits in the rain.
A dog that is afraid cannot help trembling.
The assistance dog helps people who are not able to see.
Visitors do not see the dog behind the hedge.
The dog answers to its name and offers a paw.
Sadly, the dog limps on its left hind leg.
An AI camera shows the dog as a warm blob.
The dog's request for food is a short, high whine.
No picture shows the dog without its red collar.
The language of a dog is its tail.
Nobody can tell the dog from its twin.
The dog is not sure-footed on ice.
""".strip().splitlines()


@pytest.mark.parametrize("text", [*REFUSED, *REFUSALS])
def test_refusals_are_told(text: str) -> None:
    """First persons who cannot, will not, do not know or ask back."""
    assert refusal_in(text)


@pytest.mark.parametrize("text", TOLD)
def test_descriptions_refuse_nothing(text: str) -> None:
    """The same words, said of a dog."""
    assert refusal_in(text) is None


REFUSAL_PATTERNS = [
    pattern.replace("{cannot}", "|".join(WORD_LISTS["refusal"]["cannot"])).replace(
        "{say}", "|".join(WORD_LISTS["refusal"]["say"])
    )
    for pattern in WORD_LISTS["refusal"]["patterns"]
]


@pytest.mark.parametrize("pattern", REFUSAL_PATTERNS)
def test_every_refusal_holds_a_hint(pattern: str) -> None:
    """No pattern is missed because the search starts from hints: texts made from it are refusals."""
    ascii_letters = st.characters(codec="ascii")

    @settings(max_examples=60, deadline=None)
    @given(st.from_regex(re.compile(pattern, re.IGNORECASE), alphabet=ascii_letters))
    def refused(text: str) -> None:
        assert refusal_in(text)

    refused()


HOLLOW = """
The surface of the wooden sphere is a surface.
The shape of the wooden sphere is the shape of a sphere.
The wooden sphere is a type of object that is used for many things.
The wooden sphere has a unique and beautiful shape.
The wooden sphere is made of a special material called wood.
People use the wooden sphere to make things.
The wooden sphere moves in its own way.
""".strip().splitlines()
TELLING = """
The shape of the wooden sphere is round.
The wooden sphere rolls.
The wooden sphere sounds dull when it is dropped.
The wooden sphere is warm and brown.
Wooden spheres show growth rings.
The wooden sphere is made of oak.
""".strip().splitlines()


@pytest.mark.parametrize("text", HOLLOW)
def test_hollow_texts_are_told(text: str) -> None:
    """Without the name, only words that fit everything."""
    assert judge(text, of="wooden sphere", among=GRID).status == "boilerplate"


@pytest.mark.parametrize("text", TELLING)
def test_one_telling_word_is_enough(text: str) -> None:
    """A sentence of two words with content, one of them the subject's own, says something."""
    expected = "boilerplate" if text == "The wooden sphere rolls." else "ok"
    assert judge(text, of="wooden sphere", among=GRID).status == expected


def test_what_the_opening_says_is_not_the_models() -> None:
    """`Left in the sun` was given; a model that goes on with "is a sphere" has said nothing."""
    opening = "Left in the sun, the wooden sphere"
    for rest, status in (
        ("is a sphere.", "boilerplate"),
        ("is warm.", "ok"),
        ("is in the sun.", "boilerplate"),
    ):
        verdict = judge(f"{opening} {rest}", of="wooden sphere", among=GRID, opening=opening)
        assert verdict.status == status


def test_any_language_may_be_allowed() -> None:
    """With `language` None nothing is asked of the language, and no English words are counted."""
    free = Rules(token_limit=256, language=None)
    names = categories("Hund")
    text = Candidate("r", "Der Hund bellt sehr laut.", n_tokens=9)
    assert gate("Hund", names, free).judge([text]) == [Verdict("ok")]
    assert gate("Hund", names).judge([text])[0].status == "wrong_language"


def test_texts_of_the_fakes_pass() -> None:
    """What the rehearsal server writes is taken, so that a rehearsal says something about a real run."""
    draw = random.Random(0)
    texts = [sentence(draw, "church bells") for _ in range(300)]
    among = categories("church bells", "dog")
    verdicts = gate("church bells", among).judge([Candidate(str(n), t, 20) for n, t in enumerate(texts)])
    statuses = [verdict.status for verdict in verdicts]
    assert statuses.count("ok") >= 0.97 * len(texts)
    assert {*statuses} <= {"ok", "dup_near", "dup_exact"}


def test_duplicates_point_at_what_they_repeat() -> None:
    """Case and punctuation make no new text; a near copy is told apart from an exact one."""
    first = "The wooden sphere has a warm brown surface with dark rings."
    among = gate("wooden sphere", GRID)
    one = among.judge(
        [
            Candidate("a", first, 20),
            Candidate("b", first.upper(), 20),
            Candidate("c", first.replace("dark", "darker"), 20),
            Candidate("d", "To the ear, the wooden sphere is dull.", 20),
        ]
    )
    assert [verdict.status for verdict in one] == ["ok", "dup_exact", "dup_near", "ok"]
    assert [verdict.dup_of for verdict in one] == [None, "a", "a", None]
    two = among.judge([Candidate("e", first, 20), Candidate("f", first + " It is dark.", 20)])
    assert [(verdict.status, verdict.dup_of) for verdict in two] == [("dup_exact", "a"), ("dup_near", "a")]
    assert two[1].reason is not None and two[1].reason.startswith("3-gram Jaccard 0.")
    assert among.accepted == 2


def test_a_second_copy_of_a_near_duplicate() -> None:
    """It repeats what the first copy repeats: the first copy was not kept."""
    first = "The wooden sphere has a warm brown surface with dark rings."
    near = first.replace("dark", "darker")
    verdicts = gate("wooden sphere", GRID).judge(
        [Candidate("a", first, 20), Candidate("b", near, 20), Candidate("c", near, 20)]
    )
    assert [(verdict.status, verdict.dup_of) for verdict in verdicts] == [
        ("ok", None),
        ("dup_near", "a"),
        ("dup_near", "a"),
    ]


def test_earlier_texts_are_remembered() -> None:
    """The contrast pass repeats nothing that the first pass has said."""
    among = gate("wooden sphere", GRID)
    among.remember(["old"], ["The wooden sphere has a warm brown surface with dark rings."])
    [verdict] = among.judge([Candidate("new", "The wooden sphere has a warm, brown surface with rings.", 20)])
    assert (verdict.status, verdict.dup_of) == ("dup_near", "old")


def test_a_rival_must_not_be_named() -> None:
    """Not even by a single word; a rival's name that is part of the own name cannot be helped."""
    among = category_names(categories("dog", "wolf", "Border collie", "collie"))
    text = Candidate("r", "The dog wags its tail beside two wolves.", 20)
    assert CategoryGate(among["dog"], RULES).judge([text])[0].status == "ok"
    [verdict] = CategoryGate(among["dog"], RULES).judge([text], rival=among["wolf"].own)
    assert verdict.status == "other_name"
    text = Candidate("r", "The Border collie wags its tail beside two sheep.", 20)
    assert (
        CategoryGate(among["Border collie"], RULES).judge([text], rival=among["collie"].own)[0].status == "ok"
    )


def _jaccard(one: str, other: str) -> float:
    a, b = ({text[i : i + 3] for i in range(max(1, len(text) - 2))} for text in (one, other))
    return len(a & b) / len(a | b)


def _by_brute_force(
    texts: list[str], rules: Rules, vectors: dict[str, Floats]
) -> list[tuple[str, int | None]]:
    """Verdicts by comparing each text with every kept one."""
    kept: list[int] = []
    found: list[tuple[str, int | None]] = []
    for number, text in enumerate(texts):
        plain = normalise(text)
        same = [other for other in kept if normalise(texts[other]) == plain]
        alike = {other: _jaccard(plain, normalise(texts[other])) for other in kept}
        near = [other for other in kept if alike[other] >= rules.near_jaccard]
        close = (
            [
                other
                for other in kept
                if alike[other] >= COSINE_FROM_JACCARD
                and round(float(vectors[text] @ vectors[texts[other]]), 4) >= rules.near_cosine
            ]
            if rules.near_cosine is not None
            else []
        )
        if same:
            found.append(("dup_exact", same[0]))
        elif near:
            found.append(("dup_near", max(near, key=lambda other: (alike[other], -other))))
        elif close:
            best = max(close, key=lambda o: (round(float(vectors[text] @ vectors[texts[o]]), 4), -o))
            found.append(("dup_near", best))
        else:
            found.append(("ok", None))
            kept.append(number)
    return found


_WORDS = st.sampled_from(["red", "blue", "round", "rolls", "table", "dull", "warm", "rings", "oak", "loud"])
_TEXTS = st.lists(st.lists(_WORDS, min_size=2, max_size=5), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(
    texts=_TEXTS,
    cuts=st.sets(st.integers(1, 24)),
    cosine=st.sampled_from([None, 0.7, 0.9]),
    seed=st.integers(0, 9),
)
@example(
    # The second "blue red" is like what was kept after the first, more than like what that repeats.
    texts=[["red", "rolls"], ["blue", "red"], ["red", "red"], ["blue", "table", "round"], ["blue", "red"]],
    cuts=set(),
    cosine=None,
    seed=0,
)
def test_duplicates_are_those_of_a_brute_force(
    texts: list[list[str]], cuts: set[int], cosine: float | None, seed: int
) -> None:
    """Same verdicts as comparing with every kept text, however the texts are divided into rounds."""
    sentences = [f"The wooden sphere in sand or grass {' '.join(words)}." for words in texts]
    random_ = np.random.default_rng(seed)
    vectors = {text: random_.normal(size=3).astype(np.float32) for text in sentences}
    vectors = {text: vector / np.linalg.norm(vector) for text, vector in vectors.items()}
    rules = Rules(
        token_limit=256,
        near_jaccard=0.6,
        near_cosine=cosine,
        embed=lambda wanted: np.stack([vectors[text] for text in wanted]),
    )
    among = gate("wooden sphere", GRID, rules)
    edges = [0, *sorted(cut for cut in cuts if cut < len(sentences)), len(sentences)]
    verdicts = [
        verdict
        for start, end in pairwise(edges)
        for verdict in among.judge([Candidate(str(n), sentences[n], 20) for n in range(start, end)])
    ]
    expected = [
        (status, None if other is None else str(other))
        for status, other in _by_brute_force(sentences, rules, vectors)
    ]
    assert [(verdict.status, verdict.dup_of) for verdict in verdicts] == expected


def test_only_texts_somewhat_alike_are_embedded() -> None:
    """Far apart in letters: not embedded; close: embedded once, all of a round together."""
    batches: list[list[str]] = []

    def embed(texts: list[str]) -> Floats:
        batches.append(texts)
        return np.eye(8, dtype=np.float32)[: len(texts)]

    rules = Rules(token_limit=256, near_cosine=0.9, embed=embed)
    among = gate("wooden sphere", GRID, rules)
    texts = [
        "The wooden sphere rolls over the old oak table.",
        "Heavy rain leaves dark spots on a wooden sphere outdoors.",
        "The wooden sphere rolls over the new steep floor.",
    ]
    assert [v.status for v in among.judge([Candidate(t, t, 20) for t in texts])] == ["ok"] * 3
    assert batches == [[texts[0], texts[2]]]
    more = "The wooden sphere rolls over some cold wet stones."
    among.judge([Candidate(more, more, 20)])
    assert batches[1:] == [[more]]


def test_jaccard_against_sets_done_by_hand() -> None:
    """night/nacht share no 3-gram; abcd/abce share one of three."""
    assert trigrams("night") == {"nig", "igh", "ght"} and not trigrams("night") & trigrams("nacht")
    assert len(trigrams("abcd") & trigrams("abce")) / len(trigrams("abcd") | trigrams("abce")) == 1 / 3
    assert trigrams("") == {""} and trigrams("ab") == {"ab"}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["the", "a", "dog", "dogs", "ran", "over", "old", "oak", "ÅŒ", "的是", "x", "aaaa"]
            ),
            max_size=40,
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.01, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0]),
)
def test_the_index_finds_what_a_comparison_with_all_texts_finds(texts: list[list[str]], floor: float) -> None:
    """Signatures leave out no text whose 3-grams are similar enough, and the similarity is exact."""
    index = TrigramIndex(floor)
    plain = [" ".join(words) for words in texts]
    for number, grams in enumerate(read_grams(plain)):
        values = {
            other: len(trigrams(plain[number]) & trigrams(plain[other]))
            / len(trigrams(plain[number]) | trigrams(plain[other]))
            for other in range(number)
        }
        found = {other: value for other, value in values.items() if value >= floor}
        assert index.find_similar(grams) == (list(found), list(found.values()))
        assert index.add(plain[number], "r", grams) == number
        assert grams.count == len(trigrams(plain[number]))


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_texts_of_ascii_letters_are_normalised_as_all_others(text: str) -> None:
    """The shorter way for them gives the same words."""
    assert normalise(text) == re.sub(r"[\W_]+", " ", text.casefold()).strip()


def test_long_and_declined_texts() -> None:
    """A text that the encoder would cut is too long; a declared refusal needs no words to be one."""
    among = gate("wooden sphere", GRID)
    long, declined = among.judge(
        [
            Candidate("a", "The wooden sphere rolls.", n_tokens=257),
            Candidate("b", None, refused=True, reason="No."),
        ]
    )
    assert long == Verdict("too_long", reason="257 tokens, the encoder reads 256")
    assert declined == Verdict("refusal", reason="No.")


def test_names_that_are_no_words() -> None:
    """A name of symbols alone cannot be asked for in a text, other scripts can."""
    odd = categories("+", "犬", "chien_loup")
    assert judge("Two lines cross at right angles.", of="+", among=odd).status == "ok"
    assert judge("犬 barks at the gate.", of="犬", among=odd).status == "ok"
    assert judge("A chien loup barks at the gate.", of="chien_loup", among=odd).status == "ok"
    assert judge("A cat meows.", of="犬", among=odd).status == "no_name"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("The cone is a shape with a circular base and sides that taper to a point.", "ok"),
        ("The cone is a shape whose base is a circle.", "ok"),
        ("The cone is a classic shape that people have used for centuries in ancient art.", "unfaithful"),
        ("The cone tapers in a unique and special way that geometry describes.", "unfaithful"),
    ],
)
def test_a_text_rests_on_what_is_known(text: str, status: str) -> None:
    """Two words in five may come from elsewhere, generic ones counted; without a limit all of them may."""
    known = "cone a shape whose base is a circle and whose sides taper up to a point"
    names = categories("cone", "cube")
    verdict = judge(text, of="cone", among=names, known=known)
    assert verdict.status == status
    assert (verdict.reason or "").startswith("says more than is known" if status == "unfaithful" else "")
    assert judge(text, of="cone", among=names).status == "ok"
