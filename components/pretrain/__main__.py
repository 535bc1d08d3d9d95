import sys

from components import cli
from components.pretrain.stage import pretrain

try:
    cli.run(pretrain, "python -m components.pretrain")
except BaseException as error:
    if "torch" in sys.modules:
        from components.training.ranks import leave

        leave(error)
    raise
