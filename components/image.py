"""The images that components run in. The stages' name holds "python", which kfp's local runner looks for."""

IMAGE = "localhost:5000/adapt-python:0.1.0"
TRAIN_IMAGE = "localhost:5000/adapt-train-python:0.1.0"
