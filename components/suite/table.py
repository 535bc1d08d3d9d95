"""The GLUE table: what it says, as numbers, and how it reads."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from components.tasks.published import PUBLISHED
from components.tasks.table import GENERATED, TASKS

OF_GLUE = tuple(name for name, task in TASKS.items() if task.submission)
AVERAGES: Mapping[str, tuple[str, ...]] = {
    "average": OF_GLUE,
    "average without wnli": tuple(name for name in OF_GLUE if name != "wnli"),
}
"""As GLUE's leaderboard has it; and as most papers do, since on WNLI hardly a model beats the most frequent answer."""


def summarize(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All numbers of the table, from 0 to 1, or from -1 for a correlation.

    A task's score is the mean of its metrics, for MNLI over both splits; the average is the mean of the tasks' scores (Wang et
    al., GLUE, arXiv 1804.07461, section 3). The spread is over seeds: the sample's standard deviation, and the range.

    Args:
        results: What metrics.json holds, one for each task and seed.

    Returns:
        generated: what made the data, where nobody wrote them.  tasks: name -> metrics, scores by seed, spread and best_seed.
        averages: name -> tasks, and the spread over the seeds that all these tasks have (null where there is none).  published:
        name -> source, scores, averages (only over exactly the same tasks); nothing beside generated data.  missing: tasks of
        GLUE that are not there.
    """
    generated = sorted({result["generated"] for result in results if result["generated"]})
    prefix = GENERATED if generated else ""
    tasks = {}
    for name in (prefix + name for name in TASKS):
        of_task = {int(result["seed"]): result for result in results if result["task"] == name}
        if of_task:
            scores = {seed: of_task[seed]["score"] for seed in sorted(of_task)}
            best = max(scores, key=lambda seed: scores[seed])  # the first of equals
            tasks[name] = {"metrics": _metrics(list(of_task.values())), "scores": scores, **spread(scores), "best_seed": best}
    averages = {label: [prefix + name for name in wanted] for label, wanted in AVERAGES.items()}
    chosen = {label: [name for name in wanted if name in tasks] for label, wanted in averages.items()}
    chosen = {label: names for label, names in chosen.items() if names and (label == "average" or names != chosen["average"])}
    return {
        "model": results[0]["model"],
        "method": results[0]["method"],
        "generated": generated,
        "tasks": tasks,
        "averages": {label: {"tasks": names, **_average(tasks, names)} for label, names in chosen.items()},
        "published": {
            row.name: {
                "source": row.source,
                "scores": {name: row.scores[name] for name in tasks if name in row.scores},
                "averages": {
                    label: statistics.fmean(row.scores[name] for name in names)
                    for label, names in chosen.items()
                    if row.scores.keys() >= set(names)
                },
            }
            for row in (() if generated else PUBLISHED)
        },
        "missing": [name for name in OF_GLUE if prefix + name not in tasks],
    }


def spread(scores: Mapping[int, float]) -> dict[str, float | None]:
    """Mean, standard deviation (null for one seed), least and greatest.  scores: by seed."""
    values = list(scores.values())
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def _metrics(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each metric's mean over the seeds; with the split's name, where there are several."""
    names = {
        (split, metric): f"{metric} {split.partition('_')[2]}".strip()
        for split, result in results[0]["splits"].items()
        for metric in result["metrics"]
    }
    return {
        name: statistics.fmean(result["splits"][split]["metrics"][metric] for result in results)
        for (split, metric), name in names.items()
    }


def _average(tasks: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    common = sorted(set.intersection(*(set(tasks[name]["scores"]) for name in names)))
    scores = {seed: statistics.fmean(tasks[name]["scores"][seed] for name in names) for seed in common}
    nothing = dict.fromkeys(("sd", "min", "max"))
    return {
        "scores": scores,
        **(spread(scores) if scores else nothing),
        "mean": statistics.fmean(tasks[name]["mean"] for name in names),
    }


# --- as text ---


def rows_of(table: Mapping[str, Any]) -> list[list[str]]:
    """The table's cells, the first row its head; scores times 100, as GLUE shows them."""
    head = ["", "metrics", "seeds", "mean", "sd", "min to max", *table["published"]]
    rows = [head]
    for name, task in table["tasks"].items():
        metrics = task["metrics"] if len(task["metrics"]) > 1 else {}
        shown = ", ".join(f"{metric} {percent(value)}" for metric, value in metrics.items()) or next(iter(task["metrics"]))
        published = [percent(row["scores"].get(name)) for row in table["published"].values()]
        rows.append([name, shown.replace("_", " "), *_numbers(task), *published])
    for label, average in table["averages"].items():
        published = [percent(row["averages"].get(label)) for row in table["published"].values()]
        rows.append([label, f"{len(average['tasks'])} of {len(AVERAGES[label])} tasks", *_numbers(average), *published])
    return rows


def notes_of(table: Mapping[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    notes = [
        "Scores on the validation splits, times 100: a task's is the mean of its metrics, MNLI's also of its two splits. "
        "sd (of the sample) and range are over the seeds."
    ]
    if table["generated"]:
        return [
            f"Generated data in the form of GLUE's tasks, by {'; by '.join(table['generated'])}. They say nothing of GLUE: "
            "there are no published figures to compare with, and nothing to submit.",
            *notes,
        ]
    if table["missing"]:
        notes.append(
            f"GLUE's own average is over nine tasks. Missing here: {', '.join(table['missing'])}. All averages, those of the "
            "published models too, are over the tasks at hand."
        )
    notes += [f"{name}: {row['source']}." for name, row in table["published"].items()]
    notes.append(
        "The published figures are of the same splits, one per task where GLUE has two metrics: compare accuracies and "
        "correlations with the metrics' own column. A published model without all of an average's tasks has no average."
    )
    submission = table["submission"]
    seeds = ", ".join(f"{name} {task['best_seed']}" for name, task in table["tasks"].items())
    notes.append(
        f"submission.zip: {len(submission['files'])} of the {len(submission['files']) + len(submission['missing'])} files that "
        f"GLUE's server wants, each from the seed with the best validation score ({seeds})."
    )
    if submission["missing"]:
        notes.append(f"Missing in it, because there is no such test split here: {', '.join(submission['missing'])}.")
    if submission["other_rows"]:
        counts = (f"{name} {submission['files'][name]} instead of {rows}" for name, rows in submission["other_rows"].items())
        notes.append(f"Not GLUE's own test splits, to judge by their rows: {', '.join(counts)}.")
    return notes


def markdown(table: Mapping[str, Any]) -> str:
    """The table and its notes; the columns are aligned, so that it reads as plain text too."""
    rows = rows_of(table)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) if at < 2 else "-" * (width + 1) + ":" for at, width in enumerate(widths)) + "|"
    return (
        "\n".join([f"# {title(table)}", "", lines[0], rule, *lines[1:], "", *(f"- {note}" for note in notes_of(table))]) + "\n"
    )


def title(table: Mapping[str, Any]) -> str:
    data = "Generated data in the form of GLUE" if table["generated"] else "GLUE"
    return f"{data}, fine-tuned from {table['model']} with {table['method']}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _numbers(row: Mapping[str, Any]) -> list[str]:
    extent = f"{percent(row['min'])} to {percent(row['max'])}" if row["sd"] is not None else ""
    return [str(len(row["scores"])), percent(row["mean"]), percent(row["sd"]), extent]
