"""The Kubernetes files against the published schemas, and those of KubeRay against what it requires."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from spml_dist.cli import _parser
from spml_dist.config import load

ROOT = Path(__file__).parents[2]
FILES = ("raycluster.yaml", "rayjob.yaml")
DOCUMENTS = [
    (file, document)
    for file in FILES
    for document in yaml.safe_load_all((ROOT / "cluster" / file).read_text())
]
RAY = [document for _, document in DOCUMENTS if document["apiVersion"] == "ray.io/v1"]
VERSION = kubernetes_validate.latest_version()


def cluster(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"] if document["kind"] == "RayCluster" else document["spec"]["rayClusterSpec"]


def groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster(document)["headGroupSpec"], *cluster(document)["workerGroupSpecs"]]


@pytest.mark.parametrize("document", [each for _, each in DOCUMENTS if each["apiVersion"] == "v1"])
def test_a_core_object_fits_its_schema(document):
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("document", RAY, ids=lambda each: each["kind"])
def test_every_pod_fits_its_schema(document):
    for group in groups(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **group["template"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)


@pytest.mark.parametrize("document", RAY, ids=lambda each: each["kind"])
def test_what_kuberay_requires_is_there(document):
    spec = cluster(document)
    assert document["metadata"]["name"] and spec["rayVersion"] == version("ray")
    assert isinstance(spec["headGroupSpec"]["rayStartParams"], dict)
    for group in spec["workerGroupSpecs"]:
        assert group["groupName"] and isinstance(group["rayStartParams"], dict)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    if document["kind"] == "RayJob":
        assert document["spec"]["entrypoint"] and document["spec"]["shutdownAfterJobFinishes"]


@pytest.mark.parametrize("document", RAY, ids=lambda each: each["kind"])
def test_no_pod_is_root_and_all_share_storage_memory_and_token(document):
    for group in groups(document):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/storage", "/dev/shm"}
        secret = {entry["name"] for entry in container["env"] if "valueFrom" in entry}
        assert secret == {"RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"}


def test_the_job_is_a_training_that_its_nodes_ask_to_save():
    job = next(each for each in RAY if each["kind"] == "RayJob")
    verb, config, *overrides = job["spec"]["entrypoint"].split()[1:]
    shipped = ROOT / "configs" / Path(config).name
    resolved = load(shipped, [word for word in overrides if "$" not in word])
    assert (
        verb == "train"
        and resolved.engine.workers == job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"]
    )
    for group in groups(job):
        spec = group["template"]["spec"]
        command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        asked = _parser()[0].parse_args(command[1:])
        assert asked.verb == "stop" and str(asked.folder) == f"{resolved.output}/{resolved.name}"
        assert asked.wait < spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("file", FILES)
def test_the_queue_of_kueue_is_a_label_without_its_comment_sign(file):
    text = (ROOT / "cluster" / file).read_text()
    queued = [
        each
        for each in yaml.safe_load_all(text.replace("# kueue.x-k8s.io/", "kueue.x-k8s.io/"))
        if each["apiVersion"] == "ray.io/v1"
    ]
    (document,) = queued
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "spml"
    # Kueue refuses a cluster that it could not take down, or that grows by itself.
    assert document["kind"] != "RayJob" or document["spec"]["shutdownAfterJobFinishes"]


def test_nothing_of_a_secret_is_written_into_a_file():
    for _, document in DOCUMENTS:
        assert document["kind"] != "Secret" and "token:" not in yaml.safe_dump(document)
