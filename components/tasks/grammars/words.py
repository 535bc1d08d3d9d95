"""What grammars draw with, and the words that several of them share. The last quarter of a list is new after training."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

Choice = TypeVar("Choice")

NOUNS = (
    "author teacher pilot farmer singer dancer doctor lawyer driver painter "
    "baker sailor soldier student tailor waiter hunter banker actor nurse"
).split()
PEOPLE = (
    "doctor|physician lawyer|attorney teacher|instructor kid|child boss|manager thief|burglar author|writer sailor|seaman "
    "singer|vocalist student|pupil pilot|aviator farmer|grower soldier|trooper guest|visitor "
    "tourist|traveller king|monarch actor|performer butler|servant priest|clergyman banker|financier hunter|huntsman"
).split()
"""Names of the same, as PEOPLE, THINGS and DEEDS have them, with | between."""
THINGS = (
    "car|automobile house|home boat|ship picture|painting coat|jacket bike|bicycle stone|rock shop|store sofa|couch "
    "road|street gift|present lamp|lantern phone|telephone forest|woods hat|cap rug|carpet film|movie garbage|trash bag|sack"
).split()
DEEDS = (
    "bought|purchased repaired|fixed found|discovered destroyed|wrecked cleaned|washed inspected|examined built|constructed "
    "hid|concealed wanted|desired sold|auctioned moved|shifted described|depicted guarded|protected"
).split()
TIMES = "yesterday|on monday|last week|in the morning|in june|at night|last year|on sunday|in winter".split("|")


@dataclass(frozen=True)
class Draw:
    """Choices for a row.  beyond: It is of a split that has words, and longer sentences, which the training split has not."""

    random: Random
    beyond: bool

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def one(self, choices: Sequence[Choice]) -> Choice:
        return self.random.choice(choices)

    def some(self, choices: Sequence[Choice], count: int) -> list[Choice]:
        """Different ones."""
        return self.random.sample(choices, count)

    def word(self, words: Sequence[str]) -> str:
        return self.random.choice(self._known(words))

    def words(self, words: Sequence[str], count: int) -> list[str]:
        """Different ones."""
        return self.random.sample(self._known(words), count)

    def name(self, names: str) -> str:
        """One of those that mean the same."""
        return self.random.choice(names.split("|"))

    def longer(self) -> bool:
        """Whether to make the sentence longer than they are in training."""
        return self.beyond and self.chance(0.3)

    def _known(self, words: Sequence[str]) -> Sequence[str]:
        return words if self.beyond else words[: len(words) - len(words) // 4]


def tell(draw: Draw, agent: str, verb: str, patient: str) -> str:
    """Who did what to whom, in one of two ways."""
    return f"the {agent} {verb} the {patient}" if draw.chance(0.5) else f"the {patient} was {verb} by the {agent}"


def dated(draw: Draw, text: str, when: str) -> str:
    """when: '' for no date."""
    if not when:
        return text
    return f"{when} {text}" if draw.chance(0.5) else f"{text} {when}"
