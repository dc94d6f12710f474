"""The store shows our own writes at once and never goes back in time."""

from typing import Any

from seiops.kube.informer import GRAVES, Store


def _object(name: str, version: int, *, namespace: str = "ns", **labels: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": str(version), "labels": labels}}


def _told(store: Store) -> list[tuple[Any, Any]]:
    seen: list[tuple[Any, Any]] = []

    def note(old: Any, new: Any) -> None:
        seen.append(tuple(o and o["metadata"]["resourceVersion"] for o in (old, new)))

    store.subscribe(note)
    return seen


def test_an_older_event_does_not_undo_a_recorded_write() -> None:
    store = Store()
    seen = _told(store)
    store.observe(_object("a", 1))
    store.record(_object("a", 5))
    store.observe(_object("a", 3))
    store.observe(_object("a", 5))
    found = store.get(("ns", "a"))
    assert found is not None and found["metadata"]["resourceVersion"] == "5"
    assert seen == [(None, "1")]


def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    store = Store()
    store.observe(_object("a", 1))
    store.remove(("ns", "a"), 9)
    store.record(_object("a", 8))
    assert store.get(("ns", "a")) is None
    store.observe(_object("a", 10))
    assert store.get(("ns", "a")) is not None


def test_a_deletion_does_not_take_the_object_that_has_the_name_now() -> None:
    store = Store()
    store.record(_object("a", 12))
    store.remove(("ns", "a"), 9)
    assert store.get(("ns", "a")) is not None


def test_a_full_list_removes_what_it_does_not_hold_but_not_what_was_written_since() -> None:
    store = Store()
    seen = _told(store)
    for obj in (_object("old", 1), _object("kept", 2), _object("elsewhere", 1, namespace="other")):
        store.observe(obj)
    store.record(_object("new", 9))
    store.keep_only({("ns", "kept")}, "ns", 5)
    assert {key[1] for key in (("ns", "kept"), ("ns", "new"), ("other", "elsewhere")) if store.get(key)} == {
        "kept",
        "new",
        "elsewhere",
    }
    assert store.get(("ns", "old")) is None
    assert seen[-1] == ("1", None)


def test_indexes_follow_changes() -> None:
    store = Store(indexes={"colour": lambda obj: obj["metadata"]["labels"].values()})
    store.observe(_object("a", 1, colour="red"))
    store.observe(_object("b", 2, colour="red"))
    store.observe(_object("a", 3, colour="blue"))
    assert [obj["metadata"]["name"] for obj in store.by_index("colour", "red")] == ["b"]
    store.remove(("ns", "b"), 4)
    assert store.by_index("colour", "red") == []
    assert len(store.by_index("colour", "blue")) == 1


def test_what_is_kept_is_what_the_transform_leaves() -> None:
    store = Store(lambda obj: {"metadata": {k: v for k, v in obj["metadata"].items() if k != "labels"}})
    store.observe(_object("a", 1, big="x" * 1000))
    found = store.get(("ns", "a"))
    assert found is not None and "labels" not in found["metadata"]


def test_memory_of_deletions_is_bounded() -> None:
    store = Store()
    for number in range(GRAVES + 100):
        store.remove(("ns", f"n{number}"), number)
    assert len(store._graves) == GRAVES
