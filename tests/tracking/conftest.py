"""One MLflow database for all tests of this room: making one takes seconds."""

from __future__ import annotations

import multiprocessing

import pytest

from spml_dist.tracking.mlflow_client import absolute_uri, connect, resume


@pytest.fixture(scope="session")
def uri(tmp_path_factory):
    """Made by two trainings at once."""
    address = absolute_uri("sqlite:///deep/down/mlflow.db", tmp_path_factory.mktemp("tracking"))
    other = multiprocessing.get_context("spawn").Process(target=_begin, args=(address, "elsewhere"))
    other.start()
    _begin(address, "here")
    other.join()
    return address


def _begin(uri: str, name: str) -> None:
    resume(connect(uri), uri, "together", name, None, name)
