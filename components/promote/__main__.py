from components import cli
from components.promote.stage import promote

cli.run(promote, "python -m components.promote")
