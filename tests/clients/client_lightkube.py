"""The calls of lightkube."""

import io

import httpx2
from lightkube import ApiError, Client as Lightkube, codecs
from lightkube.models.autoscaling_v1 import Scale, ScaleSpec
from lightkube.models.core_v1 import Container
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.operators import in_, not_equal
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Secret
from lightkube.types import CascadeType, OnErrorAction, OnErrorResult, PatchType

import leader_death
from steps import config_map, deployment, equal, eventually, pod, refused, run

kube = Lightkube(field_manager="lightkube")


def object_of(definition):
    return codecs.from_dict(definition)


def refusal(call):
    return refused(ApiError, call).status


def create():
    created = kube.create(object_of(config_map("light", data="1")))
    assert created.metadata.uid and created.metadata.resourceVersion, created
    again = refusal(lambda: kube.create(object_of(config_map("light"))))
    equal((again.code, again.reason), (409, "AlreadyExists"))
    secret = kube.create(Secret(metadata=ObjectMeta(generateName="light-"), stringData={"key": "value"}))
    equal(secret.data, {"key": "dmFsdWU="})
    kube.create(object_of(config_map("light-dry")), dry_run=True)
    equal(refusal(lambda: kube.get(ConfigMap, "light-dry")).code, 404)
    for loaded in codecs.load_all_yaml("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: light-yaml}\ndata: {a: b}\n"):
        equal(kube.create(loaded).data, {"a": "b"})


def get_and_replace():
    equal(kube.get(Node, "worker-1").status.nodeInfo.operatingSystem, "linux")
    found = kube.get(ConfigMap, "light")
    equal(found.data, {"data": "1"})
    found.data = {"data": "2"}
    equal(kube.replace(found).data, {"data": "2"})
    stale = refusal(lambda: kube.replace(found))
    equal((stale.code, stale.reason), (409, "Conflict"))


def list_in_pages():
    for number in range(7):
        kube.create(object_of(config_map(f"light-page-{number}", {"light": str(number % 2)})))
    pages = kube.list(ConfigMap, labels={"light": in_(["0", "1"])}, chunk_size=3)
    equal([found.metadata.name for found in pages], [f"light-page-{number}" for number in range(7)])
    assert pages.resourceVersion
    everywhere = kube.list(ConfigMap, namespace="*", labels={"light": "1"})
    equal(len(list(everywhere)), 3)
    chosen = kube.list(ConfigMap, fields={"metadata.name": "light-page-4"})
    equal([found.metadata.name for found in chosen], ["light-page-4"])
    equal(len(list(kube.list(ConfigMap, labels={"light": "0"}, fields={"metadata.name": not_equal("light-page-0")}))), 3)


def watch_and_delete():
    listed = kube.list(ConfigMap)
    list(listed)
    kube.delete(ConfigMap, "light-page-0")
    deleted = []
    for kind, found in kube.watch(ConfigMap, labels={"light": None}, resource_version=listed.resourceVersion):
        deleted.append((kind, found.metadata.name))
        if len(deleted) == 1:
            for number in range(1, 7):
                kube.delete(ConfigMap, f"light-page-{number}")
        if len(deleted) == 7:
            break
    equal(deleted, [("DELETED", f"light-page-{number}") for number in range(7)])
    equal(refusal(lambda: kube.delete(ConfigMap, "light-page-0")).code, 404)


def delete_collection():
    kube.create(object_of({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "light"}}))
    for number in range(3):
        kube.create(object_of(config_map(f"light-{number}")), namespace="light")
    # The root certificates' map is of the namespace itself.
    names = lambda: [found.metadata.name for found in kube.list(ConfigMap, namespace="light")]
    assert {"light-0", "light-1", "light-2"} <= set(names())
    kube.deletecollection(ConfigMap, namespace="light")
    assert not {"light-0", "light-1", "light-2"} & set(names())


def patch():
    kube.create(object_of(deployment("light", 0)))
    change = {"spec": {"template": {"spec": {"containers": [{"name": "b", "env": [{"name": "X", "value": "1"}]}]}}}}
    containers = kube.patch(Deployment, "light", change).spec.template.spec.containers
    equal([(c.name, bool(c.env)) for c in containers], [("a", False), ("b", True)])
    operations = [
        {"op": "test", "path": "/data/data", "value": "2"},
        {"op": "add", "path": "/metadata/labels", "value": {"patched": "json"}},
    ]
    patched = kube.patch(ConfigMap, "light", operations, patch_type=PatchType.JSON)
    equal(patched.metadata.labels, {"patched": "json"})
    wrong = [{**operations[0], "value": "9"}]
    equal(refusal(lambda: kube.patch(ConfigMap, "light", wrong, patch_type=PatchType.JSON)).code, 422)
    merged = kube.patch(ConfigMap, "light", {"data": {"data": None, "more": "3"}}, patch_type=PatchType.MERGE)
    equal(merged.data, {"more": "3"})
    labelled = kube.set(ConfigMap, "light", labels={"patched": None, "x": "y"}, annotations={"note": "kept"})
    equal((labelled.metadata.labels, labelled.metadata.annotations), ({"x": "y"}, {"note": "kept"}))


def apply():
    def applied(manager, data, **flags):
        body = ConfigMap(metadata=ObjectMeta(name="light-applied"), data=data)
        return kube.apply(body, field_manager=manager, **flags).data

    equal(applied("one", {"a": "1", "b": "1"}), {"a": "1", "b": "1"})
    conflict = refusal(lambda: applied("two", {"a": "2"}))
    equal((conflict.code, conflict.details.causes[0].field), (409, ".data.a"))
    equal(applied("two", {"a": "2"}, force=True), {"a": "2", "b": "1"})
    equal(applied("one", {"c": "1"}), {"a": "2", "c": "1"})


def scale():
    equal(kube.get(Deployment.Scale, "light").spec.replicas, 0)
    wanted = Scale(metadata=ObjectMeta(name="light", namespace="default"), spec=ScaleSpec(replicas=2))
    equal(kube.replace(Deployment.Scale(metadata=wanted.metadata, spec=wanted.spec), "light").spec.replicas, 2)
    eventually("two ready pods", lambda: kube.get(Deployment, "light").status.readyReplicas == 2)
    kube.wait(Deployment, "light", for_conditions=["Available"])
    kube.delete(Deployment, "light", cascade=CascadeType.FOREGROUND)
    eventually("the pods to be gone", lambda: not list(kube.list(Pod, labels={"app": "light"})))


def pod_becomes_ready():
    kube.create(object_of(pod("light")))
    ready = kube.wait(Pod, "light", for_conditions=["Ready"], raise_for_conditions=["Failed"])
    equal((ready.status.phase, isinstance(ready.spec.containers[0], Container)), ("Running", True))
    equal(kube.get(Pod.Status, "light").status.phase, "Running")


def exec_in_pod():
    both = kube.exec("light", command=["sh", "-c", "echo out; echo err >&2; exit 7"], stdout=True, stderr=True, timeout=60)
    equal((both.stdout, both.stderr, both.exit_code), ("out\n", "err\n", 7))
    counted = kube.exec("light", command=["wc", "-c"], stdin=io.BytesIO(b"x" * 1_000_000), stdout=True, timeout=60)
    equal((counted.stdout.strip(), counted.exit_code), ("1000000", 0))
    lines = kube.exec("light", command=["seq", "1", "100000"], stdout=True, timeout=60).stdout
    equal((len(lines.splitlines()), lines[-7:]), (100_000, "100000\n"))
    failed = refused(ApiError, lambda: kube.exec("light", command="false", raise_on_error=True, timeout=60))
    equal(failed.status.reason, "NonZeroExitCode")


def logs():
    equal(list(kube.log("light")), ["line 1\n", "line 2\n", "line 3\n"])
    equal(list(kube.log("light", tail_lines=1, newlines=False)), ["line 3"])
    assert next(kube.log("light", timestamps=True)).startswith("20")
    lines = []
    for line in kube.log("light", follow=True, newlines=False):
        lines.append(line)
        if line == "line 3":
            kube.exec("light", command=["sh", "-c", "echo late >/proc/1/fd/1"], stdout=True, timeout=60)
        if line == "late":
            break
    equal(lines, ["line 1", "line 2", "line 3", "late"])
    missing = refusal(lambda: list(kube.log("light", container="nobody")))
    equal(missing.code, 400)
    kube.delete(Pod, "light", grace_period=0)


class Client:
    def create(self, name):
        return kube.create(object_of(config_map(name, {"test": "death"}, round="0"))).metadata.uid

    def patch(self, name):
        kube.patch(ConfigMap, name, {"data": {"round": "1"}})

    def get(self, name):
        found = kube.get(ConfigMap, name)
        return found.metadata.uid, found.data["round"]

    def listed(self):
        found = kube.list(ConfigMap, labels={"test": "death"}, chunk_size=50)
        return {item.metadata.name: (item.metadata.uid, item.data["round"]) for item in found}

    def watch(self):
        again = lambda error, count: OnErrorResult(OnErrorAction.RETRY, 0.05)
        for kind, found in kube.watch(ConfigMap, labels={"test": "death"}, on_error=again):
            yield kind, found.metadata.name, found.metadata.uid, found.data["round"]

    def is_transient(self, error):
        if isinstance(error, ApiError):
            return error.status.code == 429 or error.status.code >= 500
        return isinstance(error, httpx2.HTTPError)

    def already_exists(self, error):
        return isinstance(error, ApiError) and error.status.reason == "AlreadyExists"


def leader_dies():
    leader_death.survive(Client())


run(
    create,
    get_and_replace,
    list_in_pages,
    watch_and_delete,
    delete_collection,
    patch,
    apply,
    scale,
    pod_becomes_ready,
    exec_in_pod,
    logs,
    leader_dies,
)
