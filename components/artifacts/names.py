"""The files of the folders that stages hand to each other, by name."""

# --- the tokenized task, beside SPLIT.parquet and task.json ---

TOKENIZER = "tokenizer"
"""A folder."""
STATISTICS = "statistics.json"
EXAMPLES = "examples.json"
"""Raw text to try a model with; of an evaluation, with the model's answers."""

# --- the trained model, beside what transformers writes ---

TRAINING = "training.json"
"""Which recipe and why, what was asked for, and what took effect."""
TRAINING_LOG = "metrics.jsonl"
"""A line for each update."""

# --- the evaluation ---

METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
TEST_PREDICTIONS = "test_predictions.parquet"
REPORT = "report.html"
SUMMARY = "summary.md"
FIGURES = "figures"
ERRORS = "errors.json"
