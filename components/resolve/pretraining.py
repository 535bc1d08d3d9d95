"""The first step of a pre-training: its own parameters checked together with those of the adaptation that comes after it."""

from collections.abc import Mapping
from typing import Any

from components import cli, parameters
from components.artifacts.provenance import Tracking
from components.corpus.settings import Corpus
from components.errors import UserError
from components.launch.placement import Placement
from components.pretrain import settings
from components.pretrain.settings import OF_TRAINING, Pretraining
from components.recipes import RECIPES
from components.resolve import stage
from components.resolve.stage import OF_ONE_RUN, OF_RUNS, every_run, merged
from components.tokenize.settings import STATES
from components.train.settings import OF_METHODS

OF_PRETRAINING = ("corpus", "pretrain")
STAGES = (*OF_PRETRAINING, *stage.STAGES)
"""What they have settings for."""
KNOWN = tuple(
    name for name in cli.names_of(Corpus, Pretraining, OF_TRAINING, OF_METHODS, Placement, Tracking) if name not in STATES
)
"""Every parameter that the pipeline takes, by itself or in `overrides`; and besides, by itself:"""
OF_ADAPTATION = ("tasks", "seeds", "task_source", "adaptation")
SHARED = cli.names_of(Placement, Tracking)
"""Said once for both trainings, unless `adaptation` says otherwise."""
PRETRAINED = "pretrained"
"""In the settings of an adaptation, in place of the model's name, which is not known before it is there."""


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """All that can be said without looking at anything; torch is not imported. As components.resolve.stage.check.

    Raises:
        UserError: an unknown name, a value of another type or out of range, or values that do not go together.
    """
    values = merged(given, KNOWN, OF_ADAPTATION)
    for kind in (Corpus, Placement, Tracking):
        cli.pick(kind, values)
    settings.check(of_pretraining(values))
    stage.check(of_adaptation(values))
    return values


def of_pretraining(values: Mapping[str, Any]) -> dict[str, Any]:
    known = cli.names_of(Pretraining, OF_TRAINING, OF_METHODS)
    return {name: value for name, value in values.items() if name in known}


def of_adaptation(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the suite that adapts the model.

    Raises:
        UserError: `adaptation` has what is the pipeline's to say, or asks for more tokens than the model will take.
    """
    own = values.get("adaptation", {})
    if taken := [name for name in own if name in (*OF_RUNS, *OF_ONE_RUN, "source", "model", "overrides")]:
        mend = "give task_source" if taken[0] == "source" else "the pipeline says it itself"
        raise UserError(f"adaptation has {taken[0]!r}: {mend}")
    most = values.get("sequence_length", parameters.sequence_length)
    if own.get("max_length", 0) > most:
        raise UserError(
            f"adaptation has max_length {own['max_length']}, but the model takes sequence_length, {most}, tokens at most"
        )
    return {
        **{name: values[name] for name in SHARED if name in values},
        "max_length": min(parameters.max_length, most),
        **own,
        **{name: values.get(name, parameters.default(name)) for name in OF_RUNS},
        "source": values.get("task_source", parameters.task_source),
        "model": PRETRAINED,
    }


def pinned(values: Mapping[str, Any]) -> dict[str, Any]:
    """As components.resolve.stage.pinned, of the text, the model to go on from, the vocabulary and the tasks.

    Raises:
        UserError: there is none of that name.  TryAgainError: the store is away.
    """
    from components.corpus.stage import tied
    from components.storage.state import state_of
    from components.tokenize import read

    corpus = tied(cli.pick(Corpus, values))
    names = {name: getattr(corpus, name) for name in ("source", "initial_model", "vocabulary")}
    states = {"source_state": state_of(corpus.source), "model_state": corpus.initial_model and state_of(corpus.initial_model)}
    tasks = {"task_source": read.pinned(values.get("task_source", parameters.task_source))}
    return {**values, **names, **tasks, **{name: state for name, state in states.items() if state}}


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Stage -> its settings, of values that were checked; those of the adaptation serve all its runs."""
    from components.storage.state import state_of

    own = of_pretraining(values)
    recipe = RECIPES[values.get("recipe", settings.RECIPE)].values
    training = {name: values.get(name, parameters.default(name)) for name in OF_TRAINING}
    of_recipe = [name for name in recipe if name not in values and not parameters.is_unset(name, training.get(name))]
    training |= {name: recipe[name] for name in of_recipe}  # the others are left to the recipe by being unset
    noise = {name: value for name, value in own.items() if name in OF_METHODS}
    texts = {
        "corpus": cli.write(cli.pick(Corpus, values), cli.pick(Tracking, values)),
        "pretrain": cli.write(
            cli.pick(Pretraining, values), training, cli.pick(Placement, values), cli.pick(Tracking, values), noise
        ),
    }
    adaptation = every_run(stage.check(of_adaptation(values)))[0]
    state = state_of(adaptation["source"])
    return texts | stage.texts_of({**adaptation, **({"source_state": state} if state else {})}, of_suite=True)
