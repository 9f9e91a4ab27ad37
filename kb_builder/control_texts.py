"""The fixed texts behind the controls: prompt templates that suit every modality, words that mean nothing.

The order of both is part of the result: the first `count` templates are the ones that a run uses. Places and
times come in after 128 of them, for knowledge bases of which all descriptions are centers.
"""

from __future__ import annotations

# What a sample may be a record of. The first 16 templates are these, plain, so that a small count already
# speaks of every modality.
_RECORDS = (
    "photo",
    "sound recording",
    "3D scan",
    "thermal picture",
    "video",
    "event-camera recording",
    "picture",
    "short text",
    "close-up",
    "point cloud",
    "recording",
    "heat image",
    "film clip",
    "drawing",
    "rendering",
    "view",
)
_MANNERS = ("", "clear ", "blurry ", "good ", "poor ", "typical ", "plain ", "noisy ")

_PLACES = (
    "",
    " indoors",
    " outdoors",
    " nearby",
    " far away",
    " in a corner",
    " on the left",
    " on the right",
)
_TIMES = (
    "",
    " by day",
    " at night",
    " in the morning",
    " in spring",
    " in summer",
    " in autumn",
    " in winter",
)

TEMPLATES: tuple[str, ...] = tuple(
    f"{'an' if (manner + record)[0] in 'aeiou' else 'a'} {manner}{record} of {{a}} {{name}}{place}{time}"
    for time in _TIMES
    for place in _PLACES
    for manner in _MANNERS
    for record in _RECORDS
)

# Everyday English words, written down for this project. None of them is meant to fit any category.
_WORDS = """
account action advice afternoon agreement amount answer argument arrival attempt autumn average balance
bargain beginning belief benefit birthday border bottom branch breakfast budget business candidate capital
career century chance chapter charge choice circle climate climb comfort committee company concert contest
contract copy corner council couple courage course credit crowd culture custom damage daughter debate
decade decision degree delay demand departure deposit desire detail dinner direction discount distance
district doubt dream duty economy editor effort election emphasis entry error evening event exam example
excuse exercise expense expert factor failure faith fashion favour fiction finding fortune freedom friend
future gain gallery gesture goal gossip grade grammar growth guess guest guide habit harvest height
history holiday honour hope hour idea income industry inquiry instance interest interview invention
invitation island issue journal journey judge justice kindness knowledge labour language laughter lawyer
leader league lecture legend lesson letter level limit list loan lunch luck manner market marriage match
matter meaning measure meeting member memory message method middle minute mistake moment month morning
motion motive nation neighbour network notice number object occasion offer office opinion option order
origin outcome owner package parade parent partner passage patience payment pension people period
permission person phase phrase plan player plenty policy position poster power practice praise presence
price pride prize problem process product profit program project promise proof purpose quality quarter
question quota rating reaction reason receipt record reform region relief remark rent reply report request
rescue resort respect result return reward rhythm rival routine rumour salary sample savings scheme school
season secret section sentence series service session share shift signal silence skill society solution
source speech spirit standard statement station status story strategy student study style subject success
summer supper survey symbol system talent target teacher tenant term theory thought title topic total tour
trade tradition trial trip trust truth tutor union unit update vacation value version victory village
visit vote voyage wage week welcome wish witness wonder worker world writer year youth zone
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())
