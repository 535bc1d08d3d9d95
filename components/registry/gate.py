"""May a model take the champion's place?

Only if it is not worse, on the very same examples, than the champion, nor than the best version that ever was champion: non-
inferiority by paired bootstrap. The lower end of the difference's 95 % interval must lie above -margin, so that a model that is
worse by the margin passes in about 2.5 % of cases, as is usual for such trials (ICH E9, section 3.3.2).

Held against the champion alone, models that are each a little worse than the one before would all pass: biocreep (D'Agostino,
Massaro and Sullivan, Non-inferiority trials, 2003). So what is shown to be worse than the champion is refused whatever the
margin; and once the champion is not the best any more, a model is held against the best with a twentieth of the chance of
error, since many will try. benchmarks/gate.py simulates all this.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.names import METRICS
from components.registry.comparison import POWER, compare
from components.registry.criteria import Criteria
from components.registry.facing import Faced, task_of
from components.tasks.intervals import CONFIDENCE

TEXT_NOISES = ("typos", "capitals", "odd spaces")
TRIES = 20
SURE = 1 - (1 - CONFIDENCE) / TRIES
"""Confidence that a model is held against the best with, where the champion is another."""
MEND = 'if it is to take the place all the same: --champion-rule replace --champion-reason "WHY"'


@dataclass(frozen=True)
class Decision:
    """What the gate says of a model, and why."""

    promote: bool
    reasons: list[str]
    criteria: Criteria
    champion: str = ""
    """The version that it was compared with; empty where there is none."""
    comparison: dict[str, Any] | None = None
    """As `compare` returns it; besides, what of `Faced` says how it came about."""
    best: str = ""
    """The best version that ever was champion; often the champion itself."""
    best_comparison: dict[str, Any] | None = None
    """With the best, where that is not the champion."""
    becomes_best: bool = False
    """Where it is promoted: whether it is the best champion so far, as `is_higher` says."""

    def __str__(self) -> str:
        return f"{'may be champion' if self.promote else 'stays challenger'}: {'; '.join(self.reasons)}"

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def decide(
    challenger: Path, rivals: Mapping[str, Faced | str], criteria: Criteria, champion: str = "", best: str = ""
) -> Decision:
    """The gate.

    Args:
        challenger: The folder that components.evaluate wrote.
        rivals: Version -> its answers to the same rows, or why there are none; of the champion and of the best.
        champion, best: Their versions; empty where there is none.
    """
    results = json.loads((challenger / METRICS).read_text())
    against = _below(results, criteria)
    if not champion:
        return Decision(not against, against or ["there is no champion yet"], criteria, becomes_best=not against)
    best = best or champion
    compared = {
        version: _compared(results, faced, criteria, SURE if version != champion else CONFIDENCE)
        for version, faced in rivals.items()
        if isinstance(faced, Faced) and faced.rows > 1
    }
    if criteria.champion_rule == "replace":
        good = [f"it replaces version {champion}: {criteria.champion_reason}"]
    else:
        good = []
        for version in dict.fromkeys((champion, best)):
            faced = rivals.get(version)
            if faced is None:  # the model itself: a former champion, once more
                continue
            if version in compared:
                it = compared[version], version, version == champion, criteria
                if reason := refusal(*it):
                    against.append(reason)
                else:
                    good.append(_praise(*it))
            else:
                against.append(_incomparable(results, faced, version, criteria))
    ahead = compared.get(best)
    return Decision(
        promote=not against,
        reasons=against or good,
        criteria=criteria,
        champion=champion,
        comparison=compared.get(champion),
        best=best,
        best_comparison=ahead if best != champion else None,
        becomes_best=not against and best in rivals and (ahead is None or is_higher(ahead)),
    )


def _compared(results: dict[str, Any], faced: Faced, criteria: Criteria, confidence: float) -> dict[str, Any]:
    compared = compare(task_of(results), faced.challenger, faced.rival, criteria.champion_margin, confidence)
    return {**compared, "left_out": dict(faced.left_out), "scored_anew": faced.scored_anew}


def is_higher(compared: dict[str, Any]) -> bool:
    """Whether a new champion is the best so far. On the rows of before, it is by its score: luck with these rows is not handed
    on, since the next one has to do as well on them. On other rows it would be: there it must be shown to be better.
    """
    return bool(compared["low" if compared["scored_anew"] else "difference"] > 0)


def refusal(compared: dict[str, Any], version: str, is_champion: bool, criteria: Criteria) -> str:
    """Why a comparison speaks against the model; '' where it does not."""
    if is_champion and compared["high"] < 0:
        return f"shown to be worse than version {version}: {_range(compared)}"
    if is_champion and criteria.champion_rule == "better":
        if compared["low"] <= 0:
            return f"not shown to be better than version {version}: {_range(compared)}"
    elif compared["low"] <= -compared["margin"]:
        return _not_shown(compared, _named(version, is_champion))
    return ""


def _praise(compared: dict[str, Any], version: str, is_champion: bool, criteria: Criteria) -> str:
    if is_champion and criteria.champion_rule == "better":
        return f"better than version {version}: {_range(compared)}"
    comma = "" if is_champion else ","
    return f"not worse than {_named(version, is_champion)}{comma} by {compared['margin']:g} or more: {_range(compared)}"


def _named(version: str, is_champion: bool) -> str:
    return f"version {version}" if is_champion else f"version {version}, the best champion so far"


def _incomparable(results: dict[str, Any], faced: Faced | str, version: str, criteria: Criteria) -> str:
    if isinstance(faced, str):
        return f"not comparable with version {version}: {faced}; {MEND}"
    everything = compare(task_of(results), faced.all_challenger, faced.all_rival, criteria.champion_margin)
    took = f"; it takes about {everything['recommended_rows']}" if "recommended_rows" in everything else ""
    return f"not comparable with version {version}: {_left(faced.rows, faced.left_out)}{took}"


def _below(results: dict[str, Any], criteria: Criteria) -> list[str]:
    """Why the model may be nobody's champion."""
    score, majority = results["score"], results["baselines"]["majority"]
    reasons = []
    if score <= majority:
        reasons.append(f"its score {score:.4f} does not beat {majority:.4f}, that of always giving the most frequent answer")
    if score < criteria.champion_min_score:
        reasons.append(f"its score {score:.4f} is below champion_min_score {criteria.champion_min_score:g}")
    if criteria.champion_min_robustness:
        noisy = {
            f"{split} with {noise}": result["robustness"][noise]
            for split, result in results["splits"].items()
            if "robustness" in result
            for noise in TEXT_NOISES
        }
        if not noisy:
            reasons.append("its robustness was not measured (robustness_rows is 0), and champion_min_robustness asks for it")
        elif min(noisy.values()) < criteria.champion_min_robustness:
            worst = min(noisy, key=lambda name: noisy[name])
            reasons.append(
                f"{noisy[worst]:.4f} on {worst} is below champion_min_robustness {criteria.champion_min_robustness:g}"
            )
    return reasons


def _not_shown(compared: dict[str, Any], named: str) -> str:
    text = f"not shown to be within {compared['margin']:g} of {named}: {_range(compared)}"
    if "recommended_rows" in compared and compared["power"] < POWER and compared["high"] > 0:
        text += (
            f" (on {compared['rows']} rows an equal model passes {compared['power']:.0%} of the time;"
            f" {compared['recommended_rows']} rows would make it {POWER:.0%})"
        )
    return text


def _range(compared: dict[str, Any]) -> str:
    confidence = f"{100 * compared['confidence']:g} %"
    text = f"difference {compared['difference']:+.4f}, {confidence} {compared['low']:+.4f} to {compared['high']:+.4f}"
    if compared["scored_anew"] or any(compared["left_out"].values()):
        anew = "on these validation rows anew, " if compared["scored_anew"] else ""
        text += f" ({anew}{_left(compared['rows'], compared['left_out'])})"
    return text


def _left(rows: int, left_out: Mapping[str, int]) -> str:
    """How many rows were compared, and which not."""
    why = ", ".join(f"{count} that {who} was trained on" for who, count in left_out.items() if count)
    return f"{rows} rows" + (f", without {why}" if why else "")
