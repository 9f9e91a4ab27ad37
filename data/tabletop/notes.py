"""The catalogue note of an object: a few short sentences as a person would jot them down.

Every note is put together from measured facts of the object and from everyday words for its material and
shape; it never uses the words of the category's own name, so reading it takes knowing what they mean.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from data.tabletop.objects import ObjectSpec, Shape, random_of

_THINGS: dict[Shape, tuple[str, ...]] = {
    "sphere": (
        "a ball",
        "a globe",
        "an orb",
        "a round bead",
        "a marble-shaped piece",
        "a perfectly round piece",
    ),
    "cube": (
        "a block",
        "a die-shaped block",
        "a box-shaped piece",
        "a six-sided block",
        "a square-edged block",
    ),
    "cone": (
        "a pointed piece, round at the foot",
        "a spike that tapers to a point",
        "a little witch's hat",
        "a piece like a spinning top's tip",
        "a party-hat shape",
        "a tapering pointed piece",
    ),
    "torus": (
        "a ring",
        "a doughnut",
        "a thick hoop",
        "a ring-shaped piece",
        "a bagel shape",
        "a hoop with a hole",
    ),
}
_STUFFS: dict[str, tuple[str, ...]] = {  # {v} is the variety
    "wooden": (
        "turned {v}",
        "{v} timber",
        "solid {v}",
        "carved {v}",
        "varnished {v}",
        "{v} with growth rings",
    ),
    "steel": ("{v} stainless alloy", "{v} metal", "{v} iron alloy", "machined {v} metal", "{v} bright metal"),
    "rubber": ("{v} elastomer", "{v} vulcanised latex", "springy {v} polymer", "matt {v} tyre-like stuff"),
    "glass": ("{v} crystal", "transparent {v} crystal", "see-through {v} silicate", "cast {v} crystal"),
    "stone": ("{v}", "ground {v}", "quarried {v}", "dense {v} rock", "rough-cut {v}", "solid {v} mineral"),
    "cork": ("{v} bark granulate", "pressed {v} bark", "{v} bottle-stopper bark", "{v} oak-bark agglomerate"),
}
_SOUNDS: dict[str, tuple[str, ...]] = {
    "wooden": ("gives a short, dry knock when tapped", "clacks like a castanet", "answers a tap with a tock"),
    "steel": (
        "rings on for a long time when struck",
        "chimes like a bell",
        "sings with a bright, lasting tone",
    ),
    "rubber": ("makes next to no sound when tapped", "thumps dully", "swallows a blow with a soft thump"),
    "glass": ("tinkles when touched with a nail", "gives a clear, bright ping", "clinks like a drinking cup"),
    "stone": ("clicks hard and short", "gives a sharp, brittle clack", "answers with a high, short click"),
    "cork": ("only pats when tapped", "gives a low, papery tap", "sounds muffled and soft"),
}
_FEELS: dict[str, tuple[str, ...]] = {
    "wooden": ("warm to the hand", "soon warm under the lamp", "you can feel the grain"),
    "steel": (
        "cold to the hand",
        "hardly warms under the lamp",
        "mirrors the room",
        "carries heat away at once",
    ),
    "rubber": ("gives under the thumb", "grippy to the touch", "gets warm quickly under the lamp"),
    "glass": ("slick and cool", "the table shows through, bent", "throws a pale, coloured shadow"),
    "stone": ("cool and heavy in the hand", "stays cool under the lamp", "gritty to the touch"),
    "cork": (
        "very warm under the lamp on the lit side",
        "so light it would float",
        "pitted and slightly soft",
    ),
}


# What a category's note says where its name is a part number: facts about all of its objects.
_PLAIN_STUFFS = {
    "wooden": "solid timber, brown and with growth rings",
    "steel": "bright grey metal that mirrors the room",
    "rubber": "dark, matt, springy polymer",
    "glass": "clear, see-through crystal",
    "stone": "grey, rough, heavy mineral",
    "cork": "light brown pressed bark, pitted and very light",
}
_CODES = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # no I and no O, which are read as figures


def category_note(material: str, shape: Shape) -> str:
    """What all objects of a category have in common, in the words of notes: never those of its name."""
    thing, stuff = _THINGS[shape][0], _PLAIN_STUFFS[material]
    return f"{thing} of {stuff}; {_SOUNDS[material][0]}; {_FEELS[material][0]}"


def part_number(material: str, shape: Shape) -> str:
    """The part number of a category: two letters and four figures that say nothing about it."""
    digest = hashlib.sha256(f"part/{material}-{shape}".encode()).digest()
    letters = "".join(_CODES[byte % len(_CODES)] for byte in digest[:2])
    return f"{letters}-{int.from_bytes(digest[2:6], 'big') % 9000 + 1000}"


def write_note(spec: ObjectSpec, path: Path) -> None:
    """Write the note of an object as a UTF-8 text file of one line."""
    path.write_text(note(spec) + "\n", encoding="utf-8")


def note(spec: ObjectSpec) -> str:
    """The note of an object. Equal objects have equal notes."""
    rng = random_of(spec, "text")

    def pick(*choices: str) -> str:
        return choices[int(rng.integers(len(choices)))]

    thing = pick(*_THINGS[spec.shape])
    stuff = pick(*_STUFFS[spec.material]).format(v=spec.kind.name)
    opening = pick(
        f"{thing} of {stuff}", f"{stuff}: {thing}", f"{stuff}, made as {thing}", f"{thing}, {stuff}"
    )
    length = f"{100 * spec.size:{pick('.0f', '.1f')}} cm"
    extent = "tall" if spec.shape == "cone" and spec.aspect > 1 else "across"
    grams = 1000 * spec.mass
    weight = f"{grams / 1000:.1f} kg" if grams >= 1000 else f"{float(f'{grams:.2g}'):.0f} g"
    facts = [
        pick(f"about {length} {extent}", f"{length} {extent}", f"measures {length}"),
        pick(spec.kind.colour_word, f"{spec.kind.colour_word} in colour"),
    ]
    remarks = [
        pick(*_SOUNDS[spec.material]),
        pick(*_FEELS[spec.material]),
        pick(f"weighs about {weight}", f"{weight} on the scales", f"weight {weight}"),
    ]
    facts = [facts[i] for i in rng.permutation(len(facts))]
    remarks = [remarks[i] for i in rng.permutation(len(remarks))[: rng.integers(1, 4)]]
    sentences = (", ".join([opening, *facts]), *remarks)
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
