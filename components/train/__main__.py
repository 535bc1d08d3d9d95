from components import cli
from components.train.stage import train

cli.run(train, "python -m components.train")
