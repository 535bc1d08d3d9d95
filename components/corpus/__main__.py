from components import cli
from components.corpus.stage import corpus

cli.run(corpus, "python -m components.corpus")
