from components import cli
from components.doctor.stage import check_rows, doctor
from components.errors import exit_codes

rows = cli.run(doctor, "python -m components.doctor")
with exit_codes():
    check_rows(rows or [])  # none after --help
