from components import cli
from components.tokenize.stage import tokenize

cli.run(tokenize, "python -m components.tokenize")
