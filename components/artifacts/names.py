"""The files of the folders that stages hand to each other, by name; and columns that more than one of them has."""

# --- the tokenized task, beside SPLIT.parquet and task.json ---

TOKENIZER = "tokenizer"
"""A folder."""
STATISTICS = "statistics.json"
EXAMPLES = "examples.json"
"""Raw text to try a model with; of an evaluation, with the model's answers."""

TEXT_DIGEST = "text_digest"
"""A column: what components.tokenize.digest.text_digests calls the row's texts."""
TEXTS = "texts"
"""A column of validation splits: the row's texts, in the order of the task's text columns."""

# --- the corpus, beside its tokenizer and statistics ---

TOKENS = "tokens.bin"
WORD_STARTS = "word_starts.bin"

# --- the trained model, beside what transformers writes ---

TRAINING = "training.json"
"""Which recipe and why, what was asked for, what took effect, and `timings`: how long it took, on what."""
TRAINING_LOG = "metrics.jsonl"
"""A line for each update; while it is written, with its seconds."""
TRAINING_CLOCK = "timings.jsonl"
"""The seconds of each update, since the start."""

# --- the evaluation ---

METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
TRAINED_ON = "trained_on.parquet"
"""The text digests of the rows that the model was trained on, each once, in their order."""
TEST_PREDICTIONS = "test_predictions.parquet"
REPORT = "report.html"
SUMMARY = "summary.md"
FIGURES = "figures"
ERRORS = "errors.json"
