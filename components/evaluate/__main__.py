from components import cli
from components.evaluate.stage import evaluate

cli.run(evaluate, "python -m components.evaluate")
