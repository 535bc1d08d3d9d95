"""Does plain fine-tuning here reach what the Hugging Face Trainer reaches with the same recipe?

    python benchmarks/parity.py --source GLUE_DIR --output-dir DIR

Trains MiniLM on the first rows of SST-2's training split and scores on as many other rows of it (the 872 validation rows cannot
tell one point), once per seed and side, alternating. Both sides: AdamW, linear decay to zero without warm-up, no weight decay,
gradients clipped to norm 1, dropout 0.1, fp32, batch 32. A finished run is kept in DIR and not run again.
"""

import json
import statistics
import time
from pathlib import Path

import pyarrow.parquet as pq
from transformers import PreTrainedModel

from components import cli
from components.artifacts.names import TOKENIZER
from components.errors import UserError
from components.evaluate.predict import predict
from components.modeling.load import find_model, load_tokenizer
from components.tasks.metrics import measure, score
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train
from components.training.data import read_split

TASK = TASKS["sst2"]


def parity(
    *,
    source: Path,
    output_dir: Path,
    model: str = "minilm",
    num_rows: int = 10_000,
    num_epochs: int = 2,
    learning_rate: float = 5e-5,
    seeds: list[int] = [0, 1, 2],
) -> None:
    """Compare `--method plain` with the Hugging Face Trainer on SST-2.

    Args:
        source: Folder with sst2/train.parquet in the Hugging Face schema.
        output_dir: Folder for runs and results.
        model: As in components.train.
        num_rows: Rows to train on, and as many others to score on.
        num_epochs: Passes over the rows.
        learning_rate: Peak learning rate.
        seeds: One run per seed and side.
    """
    table = pq.read_table(source / "sst2" / "train.parquet")
    if len(table) < 2 * num_rows:
        raise UserError(f"{source} has {len(table)} training rows: too few for --num-rows {num_rows}")
    raw = output_dir / "raw" / "sst2"
    raw.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.slice(0, num_rows), raw / "train.parquet")
    pq.write_table(table.slice(num_rows, num_rows), raw / "validation.parquet")
    data_dir = output_dir / "data"
    tokenize(task="sst2", source=str(raw.parent), model=model, output_dir=data_dir)

    sides = {"ours": _ours, "trainer": _trainer}
    results: dict[str, list[float]] = {side: [] for side in sides}
    for seed in seeds:
        for side, run in sides.items():
            record = output_dir / f"{side}-{num_rows}-{num_epochs}-{learning_rate}-{seed}.json"
            if not record.is_file():
                started = time.monotonic()
                trained = run(data_dir, output_dir / f"{side}-{seed}", model, num_epochs, learning_rate, seed)
                seconds = time.monotonic() - started
                record.write_text(json.dumps({"score": _score(trained, data_dir), "seconds": seconds}))
            result = json.loads(record.read_text())
            results[side].append(result["score"])
            print(f"{side:8} seed {seed}: accuracy {result['score']:.4f}, {result['seconds']:.0f} s", flush=True)
    for side, scores in results.items():
        print(f"{side:8} mean {statistics.mean(scores):.4f}, range {min(scores):.4f} to {max(scores):.4f}, {len(scores)} seeds")
    difference = statistics.mean(results["ours"]) - statistics.mean(results["trainer"])
    print(f"ours - trainer: {100 * difference:+.2f} points")
    (output_dir / "parity.json").write_text(json.dumps({**results, "difference": difference}, indent=1) + "\n")


def _ours(data_dir: Path, output_dir: Path, model: str, num_epochs: int, learning_rate: float, seed: int) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification

    train(
        data_dir=data_dir,
        model=model,
        output_dir=output_dir,
        method="plain",
        optimizer="adamw",
        learning_rate=learning_rate,
        warmup_ratio=0.0,
        weight_decay=0.0,
        num_epochs=num_epochs,
        global_batch_size=32,
        precision="fp32",
        seed=seed,
        log_interval=50,
    )
    trained: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(output_dir)
    return trained


def _trainer(data_dir: Path, output_dir: Path, model: str, num_epochs: int, learning_rate: float, seed: int) -> PreTrainedModel:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    fresh = AutoModelForSequenceClassification.from_pretrained(find_model(model), num_labels=2)
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=32,
        num_train_epochs=num_epochs,
        learning_rate=learning_rate,
        seed=seed,
        report_to=[],
        save_strategy="no",
        logging_steps=50,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    data = Dataset.from_parquet(str(data_dir / "train.parquet")).remove_columns("idx")
    collator = DataCollatorWithPadding(load_tokenizer(str(data_dir / TOKENIZER)))
    Trainer(model=fresh, args=arguments, train_dataset=data, data_collator=collator).train()
    return fresh


def _score(model: PreTrainedModel, data_dir: Path) -> float:
    rows = read_split(data_dir, "validation")
    _, predictions = predict(model.eval(), rows, 0, TASK, "the held-out rows")
    return score(measure(TASK, rows.labels.numpy(), predictions))


if __name__ == "__main__":
    cli.run(parity, "python benchmarks/parity.py")
