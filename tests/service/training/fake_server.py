"""``mnist1d serve`` whose training runs are fakes: ``python fake_server.py REPOSITORY ...``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import service.config
import service.training.process
from service.cli import main

service.config.TRAINING_MODULES = ()
service.training.process.COMMAND = (sys.executable, str(Path(__file__).parent / "fake_job.py"))

main(["serve", *sys.argv[1:]])
