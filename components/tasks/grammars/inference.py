"""Two sentences: does the second follow (rte, mnli, ax), is the question answered (qnli), who is meant (wnli)?"""

from components.tasks.grammars.words import DEEDS, PEOPLE, THINGS, TIMES, Draw, dated, tell

Pair = tuple[str, str]

KINDS = {
    "dog": "poodle beagle spaniel terrier collie bulldog",
    "bird": "sparrow eagle robin parrot owl pigeon",
    "fish": "trout salmon shark tuna herring cod",
    "tree": "oak pine willow birch maple cedar",
    "flower": "rose tulip daisy lily orchid violet",
    "fruit": "apple banana pear cherry mango plum",
    "vehicle": "car truck bus taxi van tractor",
    "tool": "hammer saw drill wrench chisel axe",
    "instrument": "violin piano trumpet flute guitar cello",
    "insect": "ant bee wasp beetle mosquito moth",
    "drink": "beer wine coffee tea juice lemonade",
    "garment": "coat shirt skirt jacket dress sweater",
}
PLACES = (
    "kitchen garden|yard forest|woods street|road shop|store church|chapel cellar|basement hospital|clinic prison|jail "
    "harbour|port attic|loft hotel|inn office barn|stable stadium|arena tower tent"
).split()
"""One excludes the other."""

VERBS = (
    "helped followed praised blamed visited called admired watched joined trusted ignored feared "
    "greeted hired thanked warned kissed taught"
).split()

MEN = (
    "king boy man father brother uncle husband son prince actor grandfather gentleman john james robert david william "
    "thomas waiter nephew monk duke peter george paul"
).split()
WOMEN = (
    "queen girl woman mother sister aunt wife daughter princess actress grandmother lady mary anna susan emma linda "
    "sarah waitress niece nun duchess alice helen laura"
).split()
NAMES = set(
    "john james robert david william thomas peter george paul mary anna susan emma linda sarah alice helen laura".split()
)
REASONS = "kind rich tired late angry happy ill young brave honest busy famous clever rude lonely".split()


def rte(draw: Draw) -> tuple[Pair, int]:
    """A beagle is a dog, and no bird."""
    label = draw.chance(0.5)
    kind, other = draw.some(tuple(KINDS), 2)
    person, deed, when = draw.word(PEOPLE), draw.word(DEEDS), draw.word(TIMES) if draw.longer() else ""

    def said(what: str) -> str:
        return f"{dated(draw, tell(draw, draw.name(person), draw.name(deed), what), when)} ."

    return (said(draw.word(KINDS[kind].split())), said(other if label else kind)), int(label)


def mnli(draw: Draw) -> tuple[Pair, int]:
    """Another place contradicts; where something else is, nobody said."""
    label = draw.random.randrange(3)
    kind, other = draw.some(tuple(KINDS), 2)
    place, elsewhere = draw.words(PLACES, 2)
    again = elsewhere if label == 2 or (label == 1 and draw.chance(0.5)) else place
    when = draw.word(TIMES) if draw.longer() else ""
    said = dated(draw, f"the {draw.word(KINDS[kind].split())} was in the {draw.name(place)}", when)
    follows = dated(draw, f"the {other if label == 1 else kind} was in the {draw.name(again)}", when)
    return (f"{said} .", f"{follows} ."), label


def qnli(draw: Draw) -> tuple[Pair, int]:
    """A place answers where, a date answers when."""
    label, is_place = draw.chance(0.5), draw.chance(0.5)
    deed, thing, place, date = map(draw.word, (DEEDS, THINGS, PLACES, TIMES))
    asked = "when" if is_place == label else "where"
    told = tell(draw, draw.name(draw.word(PEOPLE)), draw.name(deed), draw.name(thing))
    told = f"{told} {f'in the {draw.name(place)}' if is_place else date}"
    told += f" for the {draw.name(draw.word(PEOPLE))}" if draw.longer() else ""
    return (f"{asked} was the {draw.name(thing)} {draw.name(deed)} ?", f"{told} ."), int(label)


def wnli(draw: Draw) -> tuple[Pair, int]:
    """he and she say who is meant, whoever is named first."""
    label, is_she = draw.chance(0.5), draw.chance(0.5)
    pair = [draw.word(MEN), draw.word(WOMEN)]
    meant, other = (_the(pair[is_she]), _the(pair[not is_she]))
    first, second = draw.some((meant, other), 2)
    reason, more = draw.words(REASONS, 2)
    told = f"{first} {draw.word(VERBS)} {second} because {'she' if is_she else 'he'} was {reason}"
    told += f" and {more}" if draw.longer() else ""
    return (f"{told} .", f"{meant if label else other} was {reason} ."), int(label)


def _the(noun: str) -> str:
    return noun if noun in NAMES else f"the {noun}"
