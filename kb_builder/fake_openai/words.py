"""Words of the fake's sentences. None of them names a material, a solid, a colour or an animal.

Such words are often categories, and a text that names another category is rejected. The two lists of each
kind share no word, so that a sentence that draws from both repeats none.
"""


def _words(text: str) -> list[str]:
    """The words of a text; a hyphen joins two that belong together."""
    return [word.replace("-", " ") for word in text.split()]


ADJECTIVES_1 = _words(
    """
    awkward bare blunt brittle broad bulky calm chipped clean clumsy coarse compact cracked crisp crude
    curious damp dense dented dim dull dusty eager early easy elegant empty even faded faint fancy feeble
    firm flat fragile frayed fresh frosty gaudy gentle glossy graceful grainy greasy grim hasty hazy heavy
    hefty hidden hollow humble idle jagged keen knotted lavish lean leathery lively lofty loose lumpy
    mellow mild modest moist muddy muffled mute narrow neat nimble notched oblique odd ordinary ornate
    padded patchy plain pliant polished porous prim proud quaint queer quiet ragged raised random rare raw
    rigid ripe robust rough
    """
)
ADJECTIVES_2 = _words(
    """
    abrupt ample arched backward bent blurred bold brisk bumpy bushy careful cheap chilly cloudy common
    concave cosy covered creased crooked crowded curled curved deep delicate dirty distinct double drab
    dry dubious earthy elastic exact exposed fine flimsy folded formal frail frank gaping generous glum
    grand grooved gusty handy harsh hinged huge hushed icy inner irregular joint kindly lasting limp
    little long lopsided low marked massive mellowed messy minute mobile mossy muted noisy numb open outer
    pale partial peculiar pitted pointed precise printed pulpy rapid regular ridged rounded rugged rusty
    scarred scuffed severe shabby shallow sharp shiny short shrill silent simple
    """
)
NOUNS_1 = _words(
    """
    angle apron arch balance band bend blade border bottom brace bracket branch breadth brim bulge bump
    button cap cavity channel chin clasp collar column coat contour core corner cover crack crease crest
    crown cuff curl cushion dent depth dimple disc edge elbow end fold frame fringe front gap girth gleam
    glow grain grip groove handle hem hinge hollow hook hull hum imprint inside joint keel knob knot label
    latch layer ledge lid limb line lining lip loop lump margin mark middle mouth murmur
    """
)
NOUNS_2 = _words(
    """
    neck notch nozzle opening outline outside panel patch pattern peak pedestal pit plate pocket point
    pore profile prong pulse rattle rear rhythm ridge rim root rumble rustle scale scar scent seam section
    shade shadow shaft shell shine shoulder side silhouette skirt slant sleeve slit slope smear socket
    sole sparkle spine spot spout squeak stain stem stitch strap streak stripe stub stud surface swell
    tail taper tassel tear texture thickness thread throat tilt tip tone trace trim trunk vein waist
    warmth weave weight whirr width wobble wrinkle
    """
)
VERBS_1 = _words(
    """
    bears betrays bows brandishes carries casts claims conceals covers displays drags embraces exposes
    extends favours flaunts flexes gains gathers guards hides holds keeps lacks lends lifts lowers mixes
    moves needs offers owns presents presses promises raises repeats reveals shakes shares sheds shifts
    shows spreads stretches suggests supports surrounds swings tilts trails turns twists wears
    """
)
VERBS_2 = _words(
    """
    answers balances blurs borders catches completes crosses crowds darkens deepens divides doubles echoes
    ends eases fills flanks follows frames freezes hugs interrupts joins leaves lightens mirrors narrows
    nudges outlasts overlaps parts recalls reflects rounds ruffles sharpens shelters smooths softens
    splits steadies stiffens strengthens swallows tightens touches traces warms weakens widens wraps
    """
)
PREPOSITIONS = _words(
    """
    above against along around before behind below beneath beside between beyond inside near opposite over
    past through toward under within
    """
)
CONJUNCTIONS = _words(
    """
    although as because before even-if once since though until whenever where whereas while
    """
)
SCENES = _words(
    """
    afternoon air alley audience autumn balcony barn bazaar breeze bridge building camera canal cellar
    city classroom cloud corridor courtyard crowd current dawn daylight desk dust dusk engine evening
    factory fence field floodlight floor fog forest garden gate hallway harbour hedge hill house kitchen
    lamp landscape lawn lens light market meadow mist moon morning motor museum neighbour night noon
    orchard path pavement pond queue rain river road roof room shore shutter sky smoke snow station storm
    street summer sun sunset tide traffic train valley village visitor wall weather wind window winter
    workshop yard
    """
)
HAPPENINGS = _words(
    """
    advances ages appears arrives brightens changes clears closes cools creeps departs descends dims
    disappears dries drifts drops dwindles expands fades falls flickers floats flows gathers-pace glides
    glows grows halts hurries lands leans lingers melts moans opens passes pauses recedes remains rests
    returns rises rushes settles shrinks shudders sinks sleeps slows spins stands starts stays stirs stops
    sways swirls trembles vanishes vibrates waits wakes wanders whispers whistles
    """
)
MANNERS = _words(
    """
    again almost alone already anew apart away badly barely brightly briefly calmly closely daily dimly
    early easily elsewhere faintly fairly far fast firmly freely fully gently gladly hardly here indoors
    instead just late lazily lightly loudly mildly mostly nearby nearly neatly nightly often once openly
    outdoors partly plainly quickly quietly rarely safely seldom sharply silently simply slightly slowly
    smoothly softly somehow soon steadily still suddenly surely there thickly thinly together tonight
    twice upward warmly weakly wholly
    """
)
