"""What a reader should know before believing the score, in words, for report, summary and log alike."""

from statistics import fmean
from typing import Any


def caveats(results: dict[str, Any]) -> list[str]:
    """A sentence each; none where there is nothing to say.  results: what metrics.json holds."""
    seen = (_seen(split.replace("_", " "), result) for split, result in results["splits"].items())
    return [said for said in (_computed(results["precision"]), *seen, _counted(**results["baseline_rows"])) if said]


def _computed(precision: str) -> str:
    return "" if precision == "fp32" else f"Measured in {precision}; as it is served, in fp32, some answers may differ."


def _counted(majority: int, bag_of_words: int) -> str:
    """majority, bag_of_words: the training rows that each was made of."""
    if bag_of_words == majority:
        return ""
    return f"Bag of words was trained on {bag_of_words:,} rows, drawn from all {majority:,}."


def _seen(split: str, result: dict[str, Any]) -> str:
    if "also_in_training" not in result:
        return f"The model was trained on other data: how many of these {split} texts it has seen is not known."
    seen, rows = result["also_in_training"], result["rows"]
    if not seen["rows"]:
        return ""
    stand = f"{seen['rows']} of {rows} {split} texts also stand in training"
    if "without" not in seen:
        return f"{stand}: the score says nothing of new texts."
    with_them, without = fmean(result["metrics"].values()), seen["without"]["score"]
    return f"{stand}; without them the score is {without:.4f}, with them {with_them:.4f}."
