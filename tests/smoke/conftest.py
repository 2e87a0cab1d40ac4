"""What holds for every smoke run."""

import os

import reaper
from patience import PATIENCE


def pytest_sessionstart(session):
    os.environ.update(PATIENCE)
    session.config.reaper_pipe = reaper.start()
