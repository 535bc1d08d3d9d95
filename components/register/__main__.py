from components import cli
from components.register.stage import register

cli.run(register, "python -m components.register")
