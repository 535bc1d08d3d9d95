"""Two sentences: do they say the same (mrpc), ask the same (qqp), and how much of it (stsb)? In other words."""

from collections.abc import Sequence

from components.tasks.grammars.words import DEEDS, PEOPLE, THINGS, TIMES, Draw, dated, tell

Pair = tuple[str, str]

ALIKE = 0.65
"""Of mrpc and qqp: about MRPC's own share."""
WORTH = (2, 1, 2)
"""Points of stsb for an agent, a deed and a thing that agree."""
FRAMES = (
    "how can i {} my {} ?|what is the best way to {} my {} ?|how do people {} a {} ?|what should i do to {} my {} ?|"
    "is there an easy way to {} a {} ?|can anyone tell me how to {} my {} ?"
).split("|")
ACTS = (
    "buy|purchase repair|fix sell|auction clean|wash find|locate choose|select hide|conceal store|keep "
    "move|transport describe|depict build|construct"
).split()
BELONGINGS = (
    "car|automobile house|home boat|ship picture|painting coat|jacket bike|bicycle shop|store sofa|couch lamp|lantern "
    "phone|telephone laptop|notebook mug|cup purse|handbag "
    "rug|carpet film|movie tv|television fridge|refrigerator stove|cooker dog|hound rabbit|bunny"
).split()
Event = Sequence[str]


def mrpc(draw: Draw) -> tuple[Pair, int]:
    label = draw.chance(ALIKE)
    event = _event(draw)
    again = event if label else _changed(draw, event, draw.some(range(3), draw.one((1, 2))))
    when = draw.word(TIMES) if draw.longer() else ""
    return (_said(draw, event, when), _said(draw, again, when)), int(label)


def qqp(draw: Draw) -> tuple[Pair, int]:
    label = draw.chance(ALIKE)
    (act, other_act), (thing, other_thing) = draw.words(ACTS, 2), draw.words(BELONGINGS, 2)
    changed = (False, False) if label else draw.one(((True, False), (False, True), (True, True)))
    first, second = draw.words(FRAMES, 2)
    again = other_act if changed[0] else act, other_thing if changed[1] else thing
    return (first.format(draw.name(act), draw.name(thing)), second.format(*map(draw.name, again))), int(label)


def stsb(draw: Draw) -> tuple[Pair, float]:
    """0 to 5, by what agrees: a quarter of the rows in everything, a quarter in nothing."""
    event, kind = _event(draw), draw.random.randrange(4)
    changed = [part for part in range(3) if kind == 0 or (kind > 1 and draw.chance(0.5))]
    when = draw.word(TIMES) if draw.longer() else ""
    again = _changed(draw, event, changed)
    return (_said(draw, event, when), _said(draw, again, when)), 5.0 - sum(WORTH[part] for part in changed)


def _event(draw: Draw) -> Event:
    return draw.word(PEOPLE), draw.word(DEEDS), draw.word(THINGS)


def _changed(draw: Draw, event: Event, parts: Sequence[int]) -> Event:
    """Another agent, deed or thing in place of these."""
    other = _event(draw)
    while any(event[part] == other[part] for part in parts):
        other = _event(draw)
    return [other[part] if part in parts else event[part] for part in range(3)]


def _said(draw: Draw, event: Event, when: str) -> str:
    return f"{dated(draw, tell(draw, *map(draw.name, event)), when)} ."
