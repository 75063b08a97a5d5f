"""The part of JobSet's schema (jobset.x-k8s.io/v1alpha2) that our manifests use, as JSON Schema.

Types, required fields and enumerations are those of the CRD of kubernetes-sigs/jobset; what a
manifest does not use is left out, and refused here.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTP]i?)?$"}
#: Names of labels in DNS (RFC 1123).
_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_CONTAINER = _object(
    ("name",),
    name=_NAME,
    image=_TEXT,
    workingDir=_TEXT,
    command=_list(_TEXT),
    ports=_list(_object(("containerPort",), containerPort=_COUNT)),
    env=_list(_object(("name",), name=_TEXT, value=_TEXT)),
    envFrom=_list(_object(secretRef=_object(name=_NAME))),
    resources=_object(limits={"type": "object", "additionalProperties": _QUANTITY}),
    volumeMounts=_list(_object(("mountPath", "name"), name=_NAME, mountPath=_TEXT)),
)
_VOLUME = _object(
    ("name",),
    name=_NAME,
    persistentVolumeClaim=_object(("claimName",), claimName=_NAME),
    emptyDir=_object(medium={"enum": ["", "Memory"]}, sizeLimit=_QUANTITY),
)
_POD = _object(
    ("containers",),
    restartPolicy={"enum": ["Never", "OnFailure"]},  # those of a Job
    containers=_list(_CONTAINER),
    volumes=_list(_VOLUME),
)
_JOB = _object(
    ("template",),
    parallelism=_COUNT,
    completions=_COUNT,
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    backoffLimit=_COUNT,
    template=_object(spec=_POD),
)
JOBSET = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=_object(("name",), name=_NAME),
    spec=_object(
        failurePolicy=_object(maxRestarts=_COUNT),
        network=_object(
            enableDNSHostnames={"type": "boolean"}, publishNotReadyAddresses={"type": "boolean"}
        ),
        replicatedJobs=_list(
            _object(("name", "template"), name=_NAME, replicas=_COUNT, template=_object(spec=_JOB))
        ),
    ),
)
