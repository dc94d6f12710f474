"""What the API server adds to objects like ours: the defaults of Pods, probes, ports, StatefulSets, Jobs, Services, claims."""

from __future__ import annotations

from typing import Any

_POD = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "securityContext": {},
}
_CONTAINER = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_STATEFULSET = {
    "podManagementPolicy": "OrderedReady",
    "revisionHistoryLimit": 10,
    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
}
_JOB = {
    "parallelism": 1,
    "completions": 1,
    "manualSelector": False,
    "completionMode": "NonIndexed",
    "suspend": False,
    "podReplacementPolicy": "TerminatingOrFailed",
}
_SERVICE = {
    "type": "ClusterIP",
    "sessionAffinity": "None",
    "internalTrafficPolicy": "Cluster",
    "clusterIPs": ["None"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
}


def stored(rendered: dict[str, Any]) -> dict[str, Any]:
    """The object as the API server would hold it, without what only it can know (uid, times, selectors of Jobs)."""
    spec = rendered.get("spec", {})
    if rendered["kind"] == "StatefulSet":
        return {**rendered, "spec": {**_STATEFULSET, **spec, "template": _template(spec["template"])}}
    if rendered["kind"] == "Job":
        return {**rendered, "spec": {**_JOB, **spec, "template": _template(spec["template"])}}
    if rendered["kind"] == "Service":
        return {**rendered, "spec": {**_SERVICE, **spec}}
    if rendered["kind"] == "PersistentVolumeClaim":
        return {**rendered, "spec": {"volumeMode": "Filesystem", **spec}}
    return rendered


def _template(template: dict[str, Any]) -> dict[str, Any]:
    pod = {**_POD, **template["spec"]}
    pod["serviceAccount"] = pod["serviceAccountName"]
    pod["volumes"] = [_volume(volume) for volume in pod["volumes"]]
    for group in ("initContainers", "containers"):
        pod[group] = [_container(container) for container in pod[group]]
    return {**template, "spec": pod}


def _volume(volume: dict[str, Any]) -> dict[str, Any]:
    return {**volume, "configMap": {"defaultMode": 0o644, **volume["configMap"]}} if "configMap" in volume else volume


def _container(container: dict[str, Any]) -> dict[str, Any]:
    found = {**_CONTAINER, **container}
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if kind in found:
            found[kind] = _probe(found[kind])
    return found


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    found = {**_PROBE, **probe}
    if "httpGet" in found:
        found["httpGet"] = {"scheme": "HTTP", **found["httpGet"]}
    return found
