"""The page's addresses without a network between."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from spml_dist.retrieval.page.application import application

SITE = "http://127.0.0.1"
OWN = {"x-requested-with": "spml-dist", "origin": SITE, "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def client(collection) -> TestClient:
    return TestClient(application(collection, ["127.0.0.1", "localhost"]), base_url=SITE)
