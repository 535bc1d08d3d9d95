from components import cli
from components.suite.stage import suite

cli.run(suite, "python -m components.suite")
