"""What of a training took effect, in numbers: what the first lines of a run, its records, MLflow and the model's card say."""

from typing import TYPE_CHECKING, Any

from components.train.settings import Settled

if TYPE_CHECKING:
    from components.training.loop import Course
    from components.training.ranks import Ranks
    from components.training.run import Run

ASKED_ALONE = ("checkpoint_minutes", "model_state", "log_interval", "micro_batch_tokens")
"""Parameters that are kept as asked for alone: they decide nothing of what comes out, or the run says more."""


def took_effect(settled: Settled, course: "Course", run: "Run", num_rows: int, ranks: "Ranks") -> dict[str, Any]:
    """The settings with nothing left to rules, and what follows from them. Equal for equal trainings.

    learning_rate: the peak, for batches of global_batch_size; base_learning_rate is for those of base_batch_size.
    warmup_updates, num_updates, num_epochs: of the whole run.  num_examples: over all epochs.
    """
    values = {name: value for name, value in settled.values.items() if name not in ASKED_ALONE}
    return values | {
        "learning_rate": course.peak,
        "base_learning_rate": settled.training.learning_rate,
        "warmup_updates": round(course.warmup * course.num_updates),
        "warmup_ratio": round(course.warmup, 6),
        "warmup_epochs": round(course.warmup * course.num_updates / course.updates_per_epoch, 4),
        "num_updates": course.num_updates,
        "num_epochs": round(course.num_updates / course.updates_per_epoch, 4),
        "precision": run.arithmetic.name,
        "num_train_rows": num_rows,
        "num_examples": course.num_examples,
        "num_parameters": sum(weight.numel() for weight in run.network.parameters()),
        "num_ranks": ranks.count,
    }


def timings(run: "Run", ranks: "Ranks", seconds: float) -> dict[str, Any]:
    """How long it took, on what; with what came before a run was stopped and went on."""
    return {
        "seconds": round(seconds, 3),
        "samples_per_second": round(run.spent.examples / max(seconds, 1e-9), 2),
        "tokens_per_second": round(run.spent.tokens / max(seconds, 1e-9), 1),
        "device": _device(ranks),
        "micro_batch_tokens": run.tokens,
    }


def _device(ranks: "Ranks") -> str:
    import torch

    return torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ranks.device.type
