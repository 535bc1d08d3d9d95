"""Small labelled sets in GLUE's schemas, generated: for a first run, and for tests, without a download.

Every grammar is built so that the label depends on how the words are put together, not on which words are there: negation,
contrast and scope (sst2), who does what to whom (mrpc, qqp, stsb, qnli, wnli), agreement over a distance (cola), and the
direction in which a quantifier lets a word be replaced (rte, mnli, ax). They teach nothing about language and say nothing about
a model's worth elsewhere.
"""

import dataclasses
from collections.abc import Callable, Iterator
from random import Random

from components.errors import UserError
from components.tasks.table import GENERATED, UNLABELLED, Task

Row = tuple[tuple[str, ...], float]
VERSION = 1
"""Another one makes other rows."""

# --- one sentence: sentiment (sst2) ---

ASPECTS = "plot cast script music ending dialogue camerawork pacing humour premise editing score".split()
GOOD = "brilliant moving clever charming gripping fresh elegant funny warm superb".split()
BAD = "dull clumsy tedious bland lifeless stale shallow predictable cold awful".split()
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


def _opinion(random: Random, positive: bool) -> str:
    """A clause of the given polarity; half of the time it says so by negating a word of the other one."""
    negated = random.random() < 0.5
    word = random.choice(GOOD if positive != negated else BAD)
    verb = random.choice(("is never", "is not", "is anything but", "is hardly") if negated else ("is", "is truly", "is always"))
    return f"the {random.choice(ASPECTS)} {verb} {word}"


def _sentiment(random: Random, positive: bool) -> str:
    form = random.random()
    if form < 0.3:
        return _opinion(random, positive) + " ."
    if form < 0.6:
        frame, affirms = random.choice(SCOPES)
        return frame.format(_opinion(random, positive if affirms else not positive)) + " ."
    frame = random.choice(CONTRASTS)
    return frame.format(decides=_opinion(random, positive), other=_opinion(random, not positive)) + " ."


def _sst2(random: Random) -> Row:
    label = random.randrange(2)
    return (_sentiment(random, bool(label)),), label


# --- one sentence: agreement (cola) ---

NOUNS = (
    "author teacher pilot farmer singer dancer doctor lawyer driver painter "
    "baker sailor soldier student tailor waiter hunter banker actor nurse"
).split()
LINKS = "near behind beside above after with".split()
STATES = "late tired famous happy angry ready".split()


def _cola(random: Random) -> Row:
    label = random.randrange(2)
    plural = random.random() < 0.5
    subject, *between = random.sample(NOUNS, 1 + random.choice((1, 2)))
    phrase = f"the {subject}{'s' * plural}"
    for noun in between:  # the nearest noun is no guide to the verb
        phrase += f" {random.choice(LINKS)} the {noun}{'s' * (random.random() < 0.5)}"
    verb = "are" if plural == bool(label) else "is"
    return (f"{phrase} {verb} {random.choice(STATES)} .",), label


# --- two sentences: who does what to whom (mrpc, qqp, stsb, qnli, wnli) ---

VERBS = "helped followed praised blamed visited called admired watched joined trusted ignored feared".split()
OF_THE_THANKFUL = "grateful touched relieved pleased delighted moved".split()
OF_THE_THANKED = "helpful kind generous polite patient friendly".split()


def _event(random: Random) -> tuple[str, str, str]:
    agent, patient = random.sample(NOUNS, 2)
    return agent, random.choice(VERBS), patient


def _tell(random: Random, agent: str, verb: str, patient: str) -> str:
    active = random.random() < 0.5
    return f"the {agent} {verb} the {patient} ." if active else f"the {patient} was {verb} by the {agent} ."


def _mrpc(random: Random) -> Row:
    label = random.randrange(2)
    agent, verb, patient = _event(random)
    again = (agent, verb, patient) if label else (patient, verb, agent)
    return (_tell(random, agent, verb, patient), _tell(random, *again)), label


def _qqp(random: Random) -> Row:
    (first, second), label = _mrpc(random)
    return (f"is it true that {first[:-2]} ?", f"is it so that {second[:-2]} ?"), label


def _stsb(random: Random) -> Row:
    """0 to 5: one point for each of agent, verb and patient that agrees in its place, two more if all three do."""
    agent, verb, patient = event = _event(random)
    kind = random.randrange(4)
    if kind == 0:
        again = event
    elif kind == 1:
        again = (patient, verb, agent)
    else:
        other = _event(random)
        again = tuple(a if random.random() < 0.5 else b for a, b in zip(event, other, strict=True))  # type: ignore[assignment]
        if again[0] == again[2]:
            again = other
    same = sum(a == b for a, b in zip(event, again, strict=True))
    return (_tell(random, *event), _tell(random, *again)), float(same + 2 * (same == 3))


def _qnli(random: Random) -> Row:
    label = random.randrange(2)
    agent, verb, patient = _event(random)
    asked = patient if label == 0 else agent
    return (f"who {verb} the {asked} ?", _tell(random, agent, verb, patient)), label


def _wnli(random: Random) -> Row:
    label = random.randrange(2)
    agent, patient = random.sample(NOUNS, 2)
    of_agent = random.random() < 0.5
    reason = random.choice(OF_THE_THANKFUL if of_agent else OF_THE_THANKED)
    holder, bystander = (agent, patient) if of_agent else (patient, agent)
    told = f"the {agent} thanked the {patient} because they were so {reason} ."
    return (told, f"the {holder if label else bystander} was {reason} ."), label


# --- two sentences: what follows from what (rte, mnli, ax) ---

# Broad to narrow: a poodle is a dog is an animal.
KINDS = (
    ("animal dog poodle", "animal bird sparrow", "animal fish trout", "person artist painter", "person doctor surgeon")
    + ("person athlete runner", "person writer poet", "person worker miner")
)  # fmt: skip
DEEDS = (
    ("moved|ran|sprinted", "ate something|ate fruit|ate apples", "made noise|sang|sang loudly", "left|ran away|ran away fast")
    + ("saw something|saw a plant|saw a rose", "slept|slept outside|slept in a tent", "liked food|liked cake|liked plum cake")
    + ("drank something|drank juice|drank lemon juice",)
)  # fmt: skip
# Quantifier -> does it let its noun, and its verb, be replaced by a broader (+1) or a narrower (-1) one?
DIRECTIONS = {"every": (-1, +1), "some": (+1, +1), "no": (-1, -1)}
OPPOSITES = {"every": "not every", "some": "no", "no": "some"}


def _inference(random: Random, label: int, num_labels: int) -> Row:
    """label: 0 entailment, else 1 neutral and 2 contradiction, which num_labels=2 has as one."""
    quantifier = random.choice(tuple(DIRECTIONS))
    noun_ladder, verb_ladder = random.choice(KINDS).split(), random.choice(DEEDS).split("|")
    contradicts = label == 2 or (label == 1 and num_labels == 2 and random.random() < 0.5)
    while True:
        noun, verb = random.randrange(3), random.randrange(3)
        moves = (random.randint(-1, 1), random.randint(-1, 1))
        new_noun, new_verb = noun - moves[0], verb - moves[1]  # up the ladder is broader
        follows = all(move in (0, way) for move, way in zip(moves, DIRECTIONS[quantifier], strict=True))
        if min(new_noun, new_verb) < 0 or max(new_noun, new_verb) > 2 or not any(moves):
            continue
        if follows == (label == 0 or contradicts):
            break
    other = OPPOSITES[quantifier] if contradicts else quantifier
    premise = f"{quantifier} {noun_ladder[noun]} {verb_ladder[verb]} ."
    return (premise, f"{other} {noun_ladder[new_noun]} {verb_ladder[new_verb]} ."), label


def _rte(random: Random) -> Row:
    return _inference(random, random.randrange(2), 2)


def _mnli(random: Random) -> Row:
    return _inference(random, random.randrange(3), 3)


def _ax(random: Random) -> Row:
    texts, _ = _mnli(random)
    return texts, UNLABELLED


GRAMMARS: dict[str, Callable[[Random], Row]] = {
    "cola": _cola,
    "sst2": _sst2,
    "mrpc": _mrpc,
    "stsb": _stsb,
    "qqp": _qqp,
    "mnli": _mnli,
    "qnli": _qnli,
    "rte": _rte,
    "wnli": _wnli,
    "ax": _ax,
}


def named(task: Task, seed: int) -> Task:
    """The task as its generated data have it: by a name of its own, which says that nobody wrote them."""
    return dataclasses.replace(task, name=GENERATED + task.name, generated=f"sample generator {VERSION}, seed {seed}")


def generate(task: Task, num_rows: int, seed: int) -> dict[str, list[Row]]:
    """The task's splits: `num_rows` distinct rows in the largest, a quarter of that in each other; none in two splits.

    Raises:
        UserError: the grammar has not that many sentences, or none for this task.
    """
    if task.name not in GRAMMARS:
        raise UserError(f"the sample has no task '{task.name}': choose one of {', '.join(GRAMMARS)}")
    if num_rows < 4:
        raise UserError(f"num_sample_rows is {num_rows}: give at least 4")
    rows = _distinct(GRAMMARS[task.name], Random(f"{seed} {task.name}"), task.name)
    sizes = {split: num_rows if split == "train" else max(1, num_rows // 4) for split in task.files}
    splits = {split: [next(rows) for _ in range(size)] for split, size in sizes.items()}
    for split in splits:
        if split.startswith("test"):
            splits[split] = [(texts, UNLABELLED) for texts, _ in splits[split]]
    return splits


def _distinct(grammar: Callable[[Random], Row], random: Random, name: str) -> Iterator[Row]:
    seen: set[tuple[str, ...]] = set()
    tries = 0
    while tries < 1000:
        texts, label = grammar(random)
        tries += 1
        if texts not in seen:
            seen.add(texts)
            tries = 0
            yield texts, label
    raise UserError(f"the sample of '{name}' has only about {len(seen)} rows in all: give a smaller num_sample_rows")
