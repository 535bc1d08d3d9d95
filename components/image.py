"""The image that every component runs in. Its name holds "python", which kfp's local runner looks for."""

IMAGE = "localhost:5000/adapt-python:0.1.0"
