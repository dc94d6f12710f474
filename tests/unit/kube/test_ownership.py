"""The owned part equals what was applied, whatever the API server and others added around it."""

from seiops.kube.ownership import owned_part


def test_only_the_manager_s_fields_are_left() -> None:
    obj = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "n",
            "labels": {"ours": "1", "theirs": "2"},
            "managedFields": [
                {"manager": "other", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}},
                {
                    "manager": "us",
                    "operation": "Apply",
                    "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:ours": {}}},
                        "f:spec": {
                            "f:replicas": {},
                            "f:containers": {
                                'k:{"name":"b"}': {".": {}, "f:name": {}, "f:emptyDir": {}},
                                'k:{"name":"a"}': {".": {}, "f:name": {}},
                            },
                            "f:finalizers": {'v:"x"': {}},
                        },
                    },
                },
                {"manager": "us", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ],
        },
        "spec": {
            "replicas": 1,
            "defaulted": True,
            "containers": [
                {"name": "a", "image": "injected"},
                {"name": "sidecar-of-somebody"},
                {"name": "b", "emptyDir": {}, "added": 1},
            ],
            "finalizers": ["x", "y"],
        },
    }
    assert owned_part(obj, "us") == {
        "metadata": {"labels": {"ours": "1"}},
        "spec": {
            "replicas": 1,
            "containers": [{"name": "a"}, {"name": "b", "emptyDir": {}}],
            "finalizers": ["x"],
        },
    }


def test_nothing_is_owned_without_an_apply() -> None:
    assert owned_part({"metadata": {"managedFields": [{"manager": "us", "operation": "Update"}]}}, "us") is None
    assert owned_part({"metadata": {}}, "us") is None
