import sys

from components import cli
from components.train.stage import train

try:
    cli.run(train, "python -m components.train")
except BaseException as error:
    if "torch" in sys.modules:
        from components.training.ranks import leave

        leave(error)
    raise
