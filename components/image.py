"""The images that the components run in. Their names hold "python", which kfp's local runner looks for."""

IMAGE = "localhost:5000/adapt-python:0.1.0"
"""Of the stages that need no torch."""

TRAIN_IMAGE = "localhost:5000/adapt-train-python:0.1.0"
"""With torch, for the others and for the pods of a training job."""
