"""One sentence: sentiment through negation, contrast and scope (sst2); agreement and the order of words (cola)."""

from components.tasks.grammars.words import NOUNS, Draw

ASPECTS = (
    "plot cast script music ending dialogue camerawork pacing humour premise editing score acting story soundtrack direction"
).split()
GOOD = (
    "brilliant moving clever charming gripping fresh elegant funny warm superb delightful wonderful "
    "excellent beautiful fantastic enjoyable great amazing"
).split()
BAD = (
    "dull clumsy tedious bland lifeless stale shallow predictable cold awful boring terrible "
    "horrible dreadful poor disappointing weak annoying"
).split()
# Each takes a clause that is true and says whether the sentence around it still affirms it.
SCOPES = (
    ("nobody who saw it believes that {}", False),
    ("it is simply not true that {}", False),
    ("critics were wrong to claim that {}", False),
    ("i refuse to accept that {}", False),
    ("everyone who saw it agrees that {}", True),
    ("it is simply true that {}", True),
    ("critics were right to claim that {}", True),
    ("i have to accept that {}", True),
)
# The clause that decides is the one the writer comes down on, whichever side it stands.
CONTRASTS = (
    ("{other} , but {decides}", "{other} , yet in the end {decides}", "although {other} , {decides}")
    + ("{decides} , although {other}", "{decides} , even if {other}", "while {other} , {decides}")
)  # fmt: skip

LINKS = "near behind beside above after with".split()
DEGREES = "very quite rather extremely fairly so".split()
STATES = "late tired famous happy angry ready hungry old rich busy quiet brave".split()


def sst2(draw: Draw) -> tuple[tuple[str], int]:
    label = draw.chance(0.5)
    depth = 2 if draw.beyond and draw.chance(0.5) else 1
    return (f"{_sentiment(draw, label, depth)} .",), int(label)


def _sentiment(draw: Draw, positive: bool, depth: int) -> str:
    form = draw.random.random()
    if not depth or form < 0.3:
        return _opinion(draw, positive)
    if form < 0.6:
        frame, affirms = draw.one(SCOPES)
        return frame.format(_sentiment(draw, positive == affirms, depth - 1))
    frame = draw.one(CONTRASTS)
    return frame.format(decides=_sentiment(draw, positive, depth - 1), other=_opinion(draw, not positive))


def _opinion(draw: Draw, positive: bool) -> str:
    """A clause of the given polarity; half of the time it says so by negating a word of the other one."""
    negated = draw.chance(0.5)
    word = draw.word(GOOD if positive != negated else BAD)
    verb = draw.one(("is never", "is not", "is anything but", "is hardly") if negated else ("is", "is truly", "is always"))
    return f"the {draw.word(ASPECTS)} {verb} {word}"


def cola(draw: Draw) -> tuple[tuple[str], int]:
    """What is wrong is the number of the verb, or two neighbours that changed places."""
    label, plural = draw.chance(0.5), draw.chance(0.5)
    subject, *between = draw.words(NOUNS, 1 + draw.chance(0.5) + draw.longer())
    words = ["the", f"{subject}{'s' * plural}"]
    for noun in between:  # the nearest noun is a poor guide to the verb
        words += [draw.one(LINKS), "the", f"{noun}{'s' * (plural == draw.chance(0.7))}"]
    agrees = label or draw.chance(0.6)
    words += ["are" if plural == agrees else "is"]
    words += [draw.word(DEGREES), draw.word(STATES)] if draw.chance(0.5) else [draw.word(STATES)]
    if agrees and not label:
        at = draw.random.randrange(len(words) - 1)
        words[at : at + 2] = words[at + 1], words[at]
    return (" ".join([*words, "."]),), int(label)
