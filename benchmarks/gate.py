"""How often does the gate err? It must stop a model that is worse by the margin, and let one pass that is as good.

    python benchmarks/gate.py [--simulations N]

Answers of two models to the same rows are drawn from a joint distribution whose true scores are known, again and again, and the
gate compares them. A challenger that is truly worse by the margin should pass in at most 5 % of the simulations, one that is as
good in at least 90 %, on as many rows as the gate itself recommends for models that disagree this much.

And how far can a row of challengers walk it down? Twenty come one after another, each a little worse than the champion, or than
the one before, whether that passed or not. In at least 97.5 % of the simulations the champion's true score should end no more
than one margin below the best that any champion had. Steps of more than a margin ask what persistence gains: they are
not held to that. Rows stay the same, or are drawn anew for each challenger, as where data grow. Prints tables; writes gate.json
and gate.png.
"""

from pathlib import Path
from typing import Any

import numpy as np
from measure import bars, save, spread
from scipy import optimize, stats
from tqdm import tqdm

from components import cli
from components.errors import UserError
from components.registry.comparison import compare
from components.registry.criteria import Criteria
from components.registry.gate import SURE, is_higher, refusal
from components.tasks.intervals import CONFIDENCE, NUM_RESAMPLES, OF_MATRICES
from components.tasks.table import TASKS, Task

CASES = [
    ("sst2", 0.92, 0.04, 0.01),
    ("sst2", 0.92, 0.08, 0.02),
    ("rte", 0.70, 0.12, 0.03),
    ("mnli", 0.84, 0.08, 0.01),
    ("mrpc", 0.88, 0.06, 0.02),
    ("cola", 0.82, 0.06, 0.03),
    ("stsb", 0.88, 0.05, 0.01),
]
"""Task, accuracy (for scores: correlation) of the champion, share of rows where they disagree (for scores: of the error that is
their own), margin.
"""
SMALL = 300
PRIORS = {"cola": (0.3, 0.7), "mrpc": (0.32, 0.68)}
TRIALS_AT_FIRST = 20
CHALLENGERS = 20
WIDTHS = {confidence: float(stats.norm.ppf((1 + confidence) / 2)) for confidence in (CONFIDENCE, SURE)}
"""Half of a normal distribution's interval, in standard deviations."""
TAIL = (1 - CONFIDENCE) / 2
END_ERROR = float(np.sqrt(TAIL * (1 - TAIL) / NUM_RESAMPLES) / stats.norm.pdf(WIDTHS[CONFIDENCE]))
"""Standard error of an end of the interval, in standard deviations of what is drawn."""
STEPS = (0.3, 0.6, 0.9, 1.05, 1.2)
"""Of a margin."""
FALLS = ("the one before", "the champion", "the champion, after ten as good")
"""What a challenger is worse than. Of ten as good, the luckiest is the best."""
WALKS = [(step, worse_than, fresh) for fresh in (False, True) for worse_than in FALLS for step in STEPS]


def gate(
    *, output_dir: Path = Path("build/gate"), simulations: int = 1000, sequences: int = 10_000, tasks: list[str] = []
) -> None:
    """Simulate models that should pass, models that should not, and rows of challengers.

    Args:
        output_dir: Folder for the results.
        simulations: Comparisons a case; for stsb, whose ranks take time, a fifth of it.
        sequences: Rows of twenty challengers, for each case. 0 for none.
        tasks: Only these; empty for all, and the rows of challengers.
    """
    if simulations < 1 or sequences < 0:
        raise UserError("simulations must be 1 or more, sequences 0 or more")
    chosen = [case for case in CASES if not tasks or case[0] in tasks]
    print(f"{'task':6} {'margin':>6} {'rows':>6}   {'truth':20} passed")
    results: list[dict[str, Any]] = []
    passed: dict[str, dict[str, dict[str, float]]] = {}
    for name, level, disagreement, margin in chosen:
        task = TASKS[name]
        runs = max(1, simulations // 5) if task.is_regression else simulations
        equal, worse = (Truth(task, level, disagreement, loss) for loss in (0.0, margin))
        random = np.random.default_rng(0)
        rows = int(np.median([_recommended(equal, SMALL * 5, margin, random) for _ in range(TRIALS_AT_FIRST)]))
        for truth, size, label in (
            (equal, rows, "as good"),
            (worse, rows, "worse by the margin"),
            (worse, SMALL, "worse by the margin"),
        ):
            bar = tqdm(range(runs), desc=f"{name}, {label}", unit=" simulations", disable=None, leave=False)
            share = float(np.mean([_passes(truth, size, margin, random) for _ in bar]))
            print(f"{name:6} {margin:6.2f} {size:6}   {label:20} {share:.1%}")
            results.append({"task": name, "margin": margin, "rows": size, "truth": label, "passed": share, "simulations": runs})
            passed.setdefault(f"{name}, margin {margin:g}, {size} rows", {})[label] = spread([100 * share])
    walks = [] if tasks else [_walked(*walk, sequences) for walk in WALKS if sequences]
    save(output_dir, "gate", {"cases": results, "walks": walks})
    bars(output_dir / "gate.png", "the gate, simulated", "passed, % of the simulations", passed)


def _walked(step: float, worse_than: str, fresh: bool, sequences: int) -> dict[str, Any]:
    """How often twenty challengers, each worse by `step` margins, leave the champion within one margin of the best."""
    random = np.random.default_rng(0)
    name = f"each {step:g} margins worse than {worse_than}, {'fresh rows' if fresh else 'the same rows'}"
    bar = tqdm(range(sequences), desc=name, unit=" sequences", disable=None, leave=False)
    drops = np.array([Walk(random, fresh).go(step, worse_than) for _ in bar])
    walked = {"step": step, "worse_than": worse_than, "fresh": fresh, "sequences": sequences, "worst": float(drops.max())}
    walked |= {"within": float((drops <= 1 + 1e-9).mean()), "mean": float(drops.mean())}
    print(
        f"{name:80} within one margin: {walked['within']:.2%}; on average {walked['mean']:.2f}, at most {walked['worst']:.2f}"
    )
    return walked


class Walk:
    """A champion, the best so far, and challengers of SST-2 with a margin of 0.01, on as many rows as the gate recommends.

    Rows are easy, hard, or such that a model has them right by its own chance; this chance is what a worse model has less of.
    """

    task, margin, rows = TASKS["sst2"], 0.01, 4921
    easy, open_ = 0.88, 0.08

    def __init__(self, random: np.random.Generator, fresh: bool) -> None:
        self.random, self.fresh = random, fresh
        self._draw_rows()

    def _draw_rows(self) -> None:
        self.kinds = self.random.choice(3, self.rows, p=(self.easy, self.open_, 1 - self.easy - self.open_))

    def right(self, loss: float) -> np.ndarray:
        """(rows,) which a model has right whose true score is `loss` below that of one that has half of the open rows right."""
        chance = 0.5 - loss / self.open_
        chances = np.array([1 + min(0.0, chance) * self.open_ / self.easy, max(0.0, chance), 0.0], np.float32)
        found: np.ndarray = self.random.random(self.rows, np.float32) < chances[self.kinds]
        return found

    def go(self, step: float, worse_than: str) -> float:
        """The largest distance, in margins, between a champion's true score and the best true score of those before it."""
        criteria = Criteria(self.margin, 0.0, 0.0)
        champion = best = 0.0, self.right(0.0)
        highest, drop = 0.0, 0.0
        for number in range(1, CHALLENGERS + 1):
            loss = step * self.margin * number if worse_than == FALLS[0] else champion[0] + step * self.margin
            if worse_than == FALLS[2] and number <= CHALLENGERS // 2:
                loss = 0.0
            if self.fresh:
                self._draw_rows()
                same = best is champion
                champion = champion[0], self.right(champion[0])
                best = champion if same else (best[0], self.right(best[0]))
            challenger = loss, self.right(loss)
            compared = self.compared(challenger[1], champion[1], CONFIDENCE)
            ahead = compared if best is champion else self.compared(challenger[1], best[1], SURE)
            if refusal(compared, "", True, criteria) or (best is not champion and refusal(ahead, "", False, criteria)):
                continue
            champion = challenger
            best = challenger if is_higher(ahead) else best
            highest = min(highest, loss)
            drop = max(drop, (loss - highest) / self.margin)
        return drop

    def compared(self, challenger: np.ndarray, champion: np.ndarray, confidence: float) -> dict[str, Any]:
        """As `compare`, a hundred times as fast: what its bootstrap draws of two accuracies is all but a normal distribution,
        known from two counts. The error that the ends of the interval have from few resamples is drawn too.
        """
        ours, theirs = int((challenger & ~champion).sum()), int((champion & ~challenger).sum())
        middle, apart = (ours - theirs) / (self.rows + 2), (ours + theirs + 2) / (self.rows + 2)  # with one more of each
        spread = np.sqrt((apart - middle**2) / self.rows)
        widths = WIDTHS[confidence] * (1 + END_ERROR / WIDTHS[CONFIDENCE] * self.random.standard_normal(2))
        low, high = middle + spread * widths * (-1, 1)
        compared = {"difference": (ours - theirs) / self.rows, "low": low, "high": high, "margin": self.margin}
        return {**compared, "confidence": confidence, "rows": self.rows, "left_out": {}, "scored_anew": self.fresh}


class Truth:
    """Two models' answers to rows of a task, with true scores that are `loss` apart."""

    def __init__(self, task: Task, level: float, disagreement: float, loss: float) -> None:
        self.task, self.level, self.disagreement = task, level, disagreement
        highest = 1.0 if task.is_regression else disagreement
        self.shift = optimize.brentq(lambda shift: self._loss(shift) - loss, 0.0, highest * 0.999) if loss else 0.0

    def draw(self, rows: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows,) labels, challenger's and champion's answers."""
        if self.task.is_regression:
            labels, shared, *own = random.standard_normal((4, rows))
            noise = np.sqrt(1 / self.level**2 - 1)
            common, alone = np.sqrt(1 - self.disagreement) * shared, np.sqrt(self.disagreement)
            return (
                labels,
                labels + noise * (1 + self.shift) * (common + alone * own[0]),
                labels + noise * (common + alone * own[1]),
            )
        joint = self._joint(self.shift)
        cells = random.choice(joint.size, rows, p=joint.ravel())
        labels, challenger, champion = np.unravel_index(cells, joint.shape)
        return labels, challenger, champion

    def _joint(self, shift: float) -> np.ndarray:
        """(label, challenger, champion) chances: both right, one of them, or neither, with the same wrong answer."""
        classes = self.task.num_outputs
        priors = PRIORS.get(self.task.name, (1 / classes,) * classes)
        only_one = self.disagreement / 2
        joint = np.zeros((classes,) * 3)
        for label, prior in enumerate(priors):
            wrong = [number for number in range(classes) if number != label]
            for number in wrong:
                joint[label, number, label] = prior * (only_one + shift / 2) / len(wrong)
                joint[label, label, number] = prior * (only_one - shift / 2) / len(wrong)
                joint[label, number, number] = prior * (1 - self.level - only_one + shift / 2) / len(wrong)
            joint[label, label, label] = prior - joint[label].sum()
        return joint

    def _loss(self, shift: float) -> float:
        """True score of the champion minus that of the challenger."""
        if self.task.is_regression:
            noise = np.sqrt(1 / self.level**2 - 1)
            correlations = [1 / np.sqrt(1 + part**2) for part in (noise, noise * (1 + shift))]
            # Spearman's of two normal variables whose Pearson's is r: 6/pi * asin(r/2)
            scores = [(pearson + 6 / np.pi * np.arcsin(pearson / 2)) / 2 for pearson in correlations]
            return float(scores[0] - scores[1])
        many = np.rint(self._joint(shift) * 10**9)[None]
        return float(np.mean([OF_MATRICES[name](many.sum(2)) - OF_MATRICES[name](many.sum(3)) for name in self.task.metrics]))


def _comparison(truth: Truth, rows: int, margin: float, random: np.random.Generator) -> dict[str, Any]:
    labels, challenger, champion = truth.draw(rows, random)
    return compare(truth.task, {"validation": (labels, challenger)}, {"validation": (labels, champion)}, margin)


def _passes(truth: Truth, rows: int, margin: float, random: np.random.Generator) -> bool:
    compared = {**_comparison(truth, rows, margin, random), "left_out": {}, "scored_anew": False}
    return not refusal(compared, "", True, Criteria(margin, 0.0, 0.0))


def _recommended(truth: Truth, rows: int, margin: float, random: np.random.Generator) -> int:
    return int(_comparison(truth, rows, margin, random)["recommended_rows"])


if __name__ == "__main__":
    cli.run(gate, "python benchmarks/gate.py")
