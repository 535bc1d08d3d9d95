from components import cli
from components.resolve.stage import resolve

cli.run(resolve, "python -m components.resolve")
