"""The first step: all parameters checked together, recipe and method filled in, names pinned, and each stage's settings as one
JSON text.

A text, since KFP turns the numbers of a dict into doubles; and one for each stage, of what it reads and nothing else: a stage's
cache key does not change with what is another's.
"""

from collections.abc import Collection, Mapping
from typing import Any

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.evaluate.settings import Evaluating
from components.launch.placement import Placement
from components.register.settings import Registering
from components.registry.criteria import Criteria
from components.suite.stage import runs
from components.tasks.table import TASKS
from components.tokenize.settings import STATES, Tokenizing
from components.train import settings
from components.train.settings import OF_METHODS, Training

STAGES: Mapping[str, tuple[type, ...]] = {
    "tokenize": (Tokenizing, Tracking),
    "train": (Training, Placement, Tracking),
    "evaluate": (Evaluating, Tracking),
    "register": (Registering, Criteria, Tracking),
    "promote": (Criteria, Tracking),
}
"""Stage -> what its settings are made of."""
KNOWN = tuple(
    name for name in cli.names_of(*(kind for kinds in STAGES.values() for kind in kinds), OF_METHODS) if name not in STATES
)
"""Every parameter that the pipelines take, by itself or in `overrides`."""
OF_RUNS = ("tasks", "seeds")
OF_ONE_RUN = ("task", "seed", "text_columns", "label_column", "name")
"""What a suite does not take: each of its runs has its own."""


@cli.taking(KNOWN, ("overrides",))
def resolve(**given: Any) -> dict[str, str]:
    """Check all parameters of a pipeline together, and print each stage's settings.

    Returns:
        Stage -> its settings.

    Raises:
        UserError: what cannot be run, by the parameter's name.
    """
    texts = texts_of(pinned(check(given)))
    for stage, text in texts.items():
        print(f"{stage}: {text}", flush=True)
    return texts


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """All that can be said without looking at anything; torch is not imported.

    Args:
        given: By name, some of them perhaps in `overrides`; with tasks and seeds, of a suite.

    Returns:
        What is given and not unset, as the parameters have it.

    Raises:
        UserError: an unknown name, a value of another type or out of range, or values that do not go together.
    """
    values = merged(given, [name for name in KNOWN if "tasks" not in given or name not in OF_ONE_RUN], (*KNOWN, *OF_RUNS))
    for each in every_run(values) if "tasks" in given else [values]:
        for kinds in STAGES.values():
            for kind in kinds:
                cli.pick(kind, each)
        settings.check(each)
    return values


def merged(given: Mapping[str, Any], known: Collection[str], beside_too: Collection[str]) -> dict[str, Any]:
    """What is given by itself and in `overrides`, and not unset, each checked by itself.

    Args:
        known: What `overrides` may have.  beside_too: What may be given by itself alone.

    Raises:
        UserError: an unknown name, one given twice, a value of another type or out of range.
    """
    overrides = parameters.check("overrides", given.get("overrides") or {})
    cli.check_names(overrides, known, "overrides")
    beside = {name: value for name, value in given.items() if name != "overrides" and not parameters.is_unset(name, value)}
    cli.check_names(beside, (*known, *beside_too), "the pipeline")
    if twice := [name for name in overrides if name in beside and overrides[name] != beside[name]]:
        raise UserError(f"{twice[0]} is given twice, by itself and in overrides: give it once")
    return {name: parameters.check(name, value) for name, value in {**beside, **overrides}.items()}


def every_run(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A suite's values with each of its tasks and seeds."""
    common = {name: value for name, value in values.items() if name not in OF_RUNS}
    tasks, seeds = (values.get(name, parameters.default(name)) for name in OF_RUNS)
    return [{**common, "task": run["glue_task"], "seed": run["seed"]} for run in runs(tasks, seeds)]


def pinned(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with names that may come to mean something else tied to what they mean now.

    A model or data set of the hub to its commit, a folder or file, here or in the store, to its state.

    Raises:
        UserError: there is none of that name.  TryAgainError: the store is away.
    """
    from components.modeling import load
    from components.storage.state import state_of
    from components.tokenize import read

    model, source = (values.get(name, parameters.default(name)) for name in ("model", "source"))
    names = {"model": load.pinned(model), "source": read.pinned(source)}
    states = {"model_state": state_of(model), "source_state": state_of(source)}
    return {**values, **names, **{name: state for name, state in states.items() if state}}


def texts_of(values: Mapping[str, Any], of_suite: bool = False) -> dict[str, str]:
    """Stage -> its settings, of values that were checked.

    Args:
        of_suite: They serve other tasks too, which may have other numbers of rows.
    """
    of_data = dict(values)
    if of_data.get("source") != "sample":  # what nothing else reads
        of_data = {name: value for name, value in of_data.items() if name not in ("seed", "num_sample_rows")}
    of_training = {name: value for name, value in values.items() if name in cli.names_of(Training, OF_METHODS)}
    num_rows = None if of_suite else num_train_rows(values)
    if num_rows is not None:
        settled = settings.settle(of_training, num_rows)
        of_training |= {**settled.values, "recipe": values.get("recipe", "")}  # by which the training says why
        print(f"train: {settled}: {settled.in_numbers}", flush=True)
    else:
        print("train: what follows from the number of rows the run says, and precision and micro-batches", flush=True)
    noise = {name: value for name, value in of_training.items() if name in OF_METHODS}
    given = {"tokenize": of_data, "train": {**values, **of_training}}
    texts = {}
    for stage, kinds in STAGES.items():
        made: list[Any] = [cli.pick(kind, given.get(stage, values)) for kind in kinds]
        texts[stage] = cli.write(*made, noise if stage == "train" else {})
    return texts


def num_train_rows(values: Mapping[str, Any]) -> int | None:
    """Of the training split, where that is known before anything is read."""
    source = values.get("source", parameters.default("source"))
    if source == "sample":
        return int(values.get("num_sample_rows", parameters.default("num_sample_rows")))
    from components.tokenize.read import HUB_REPOSITORY

    is_glue = source == "hub" or source.partition("@")[0] == f"hub:{HUB_REPOSITORY}"
    if is_glue and not values.get("text_columns"):
        return TASKS[values["task"]].train_rows or None
    return None
