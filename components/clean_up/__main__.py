from components import cli
from components.clean_up.stage import clean_up

cli.run(clean_up, "python -m components.clean_up")
