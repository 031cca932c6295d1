"""``python -m service.cli`` is ``mnist1d``."""

from service.cli import main

main(prog_name="mnist1d")
