"""The images that components run in. Their names hold "python", which kfp's local runner looks for.

compile.py puts others in their place, by digest: `--image`, `--train-image`.
"""

IMAGE = "localhost:5000/adapt-python-stage:0.1.0"
"""Without torch: tokenize, promote, suite, clean_up, doctor."""

TRAIN_IMAGE = "localhost:5000/adapt-python-train:0.1.0"
"""With torch: train, evaluate, register, and the pods of the training job."""
