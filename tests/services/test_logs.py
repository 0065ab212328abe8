"""The service's lines are in Serve's files, also after a library has configured logging for itself."""

import logging
from collections.abc import Iterator
from logging.config import dictConfig
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest

from services import logs


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """The file of a logger that is set up as Serve sets up its own."""
    ours, serves = logging.getLogger("viter"), logging.getLogger(logs.SERVES)
    before = [(each, each.handlers, each.propagate, each.level) for each in (ours, serves)]
    serves.handlers, serves.level = [MemoryHandler(1, target=logging.FileHandler(tmp_path / "log"))], logging.INFO
    yield tmp_path / "log"
    for logger, logger.handlers, logger.propagate, level in before:
        logger.setLevel(level)


def test_our_lines_are_in_serves_file(written: Path):
    logs.join_serve()
    logging.getLogger("viter.replica").info("a line")
    assert written.read_text() == "a line\n"


def test_a_library_that_configures_logging_takes_the_file_from_nobody(written: Path):
    logs.join_serve()
    with logs.kept():
        dictConfig({"version": 1, "disable_existing_loggers": False})
    logging.getLogger("viter.replica").info("a line")
    logging.getLogger(logs.SERVES).info("another")
    assert written.read_text() == "a line\nanother\n"
