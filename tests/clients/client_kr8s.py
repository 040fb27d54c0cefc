"""The calls of kr8s."""

import json

import httpx
import kr8s
from kr8s.objects import ConfigMap, Deployment, Node, Pod, Secret, Table

import leader_death
from steps import config_map, deployment, equal, eventually, page, pod, refused, run

api = kr8s.api()


def refusal(call):
    return refused(kr8s.ServerError, call).status


def discovery():
    equal(api.version()["minor"], "36")
    kinds = {resource["kind"] for resource in api.api_resources()}
    assert {"Pod", "Deployment", "NetworkPolicy"} <= kinds, kinds
    equal(api.lookup_kind("po")[:2], ("pod/v1", "pods"))
    equal(kr8s.whoami(), "kubernetes-admin")
    [node] = kr8s.get("nodes")
    equal((node.name, node.status.nodeInfo.operatingSystem), ("worker-1", "linux"))


def create():
    created = ConfigMap(config_map("kr", data="1"))
    created.create()
    assert created.metadata.uid and created.metadata.resourceVersion, created.raw
    again = refusal(ConfigMap(config_map("kr")).create)
    equal((again["code"], again["reason"]), (409, "AlreadyExists"))
    secret = Secret({"metadata": {"generateName": "kr-"}, "stringData": {"key": "value"}})
    secret.create()
    equal(secret.data, {"key": "dmFsdWU="})
    kr8s.create([ConfigMap(config_map(f"kr-page-{number}", {"kr": str(number % 2)})) for number in range(7)])


def get_and_list():
    equal(ConfigMap.get("kr").data, {"data": "1"})
    assert ConfigMap.get("kr").exists() and not ConfigMap(config_map("kr-nobody")).exists()
    refused(kr8s.NotFoundError, lambda: ConfigMap.get("kr-nobody", timeout=1))
    labelled = list(kr8s.get("configmaps", label_selector={"kr": "1"}, namespace=kr8s.ALL))
    equal([found.name for found in labelled], ["kr-page-1", "kr-page-3", "kr-page-5"])
    [chosen] = kr8s.get("cm", field_selector={"metadata.name": "kr-page-4"}, raw=True)
    equal(chosen["metadata"]["labels"], {"kr": "0"})
    [table] = kr8s.get("configmaps", label_selector="kr", as_object=Table)
    equal([column["name"] for column in table.column_definitions], ["Name", "Data", "Age"])
    equal(len(table.rows), 7)
    # The library reads lists in pages of 100.
    kr8s.create([ConfigMap(config_map(f"kr-many-{number:03}", {"kr": "many"})) for number in range(120)])
    names = [found.name for found in kr8s.get("configmaps", label_selector="kr=many")]
    equal(names, [f"kr-many-{number:03}" for number in range(120)])


def watch_and_delete():
    seen = []
    for kind, found in kr8s.watch("configmaps", label_selector="kr in (0,1)"):
        seen.append((kind, found.name))
        if len(seen) == 7:
            for number in range(7):
                ConfigMap.get(f"kr-page-{number}").delete()
        if len(seen) == 14:
            break
    names = [f"kr-page-{number}" for number in range(7)]
    equal(sorted(seen[:7]), [("ADDED", name) for name in names])
    equal(seen[7:], [("DELETED", name) for name in names])
    gone = ConfigMap(config_map("kr-page-0"))
    refused(kr8s.NotFoundError, gone.delete)


def patch():
    config = ConfigMap.get("kr")
    config.patch({"data": {"data": None, "more": "3"}})
    equal(config.data, {"more": "3"})
    config.patch([{"op": "add", "path": "/metadata/labels", "value": {"patched": "json"}}], type="json")
    equal(config.labels, {"patched": "json"})
    wrong = [{"op": "test", "path": "/data/more", "value": "9"}]
    equal(refusal(lambda: config.patch(wrong, type="json"))["code"], 422)
    config.label({"x": "y"})
    config.annotate({"note": "kept"})
    config.remove_label("patched")
    equal((config.labels, config.annotations), ({"x": "y"}, {"note": "kept"}))
    node = Node.get("worker-1")
    node.cordon()
    equal(Node.get("worker-1").unschedulable, True)
    node.uncordon()
    node.taint("kr", "1", effect="PreferNoSchedule")
    node.refresh()
    # The taint of the cordon may still be there.
    assert "kr" in [taint["key"] for taint in node.taints], node.taints
    node.patch({"spec": {"taints": None}})


def apply():
    """The library has no call for server-side apply, so its users make the request with `call_api`."""

    async def request(manager, data, force):
        body = {**config_map("kr-applied", **data), "metadata": {"name": "kr-applied"}}
        call = api.call_api(
            "PATCH",
            namespace="default",
            url="configmaps/kr-applied",
            params={"fieldManager": manager, "force": str(force).lower()},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=json.dumps(body),
        )
        async with call as answer:
            return answer.json()["data"]

    from kr8s._async_utils import as_sync_func

    applied = lambda manager, data, force=False: as_sync_func(request)(manager, data, force)
    equal(applied("one", {"a": "1", "b": "1"}), {"a": "1", "b": "1"})
    conflict = refusal(lambda: applied("two", {"a": "2"}))
    equal((conflict["code"], conflict["details"]["causes"][0]["field"]), (409, ".data.a"))
    equal(applied("two", {"a": "2"}, force=True), {"a": "2", "b": "1"})
    equal(applied("one", {"c": "1"}), {"a": "2", "c": "1"})


def scale():
    scaled = Deployment(deployment("kr", 0))
    scaled.create()
    scaled.scale(2)
    scaled.wait("condition=Available", timeout=60)
    eventually("two ready pods", lambda: len(list(scaled.pods())) == 2 and scaled.ready())
    scaled.delete(propagation_policy="Foreground")
    scaled.wait("delete", timeout=60)
    eventually("the pods to be gone", lambda: not list(kr8s.get("pods", label_selector="app=kr")))


def pod_becomes_ready():
    created = Pod(pod("kr"))
    created.create()
    created.wait("condition=Ready", timeout=60)
    created.refresh()
    equal((created.ready(), created.status.phase), (True, "Running"))


def exec_in_pod():
    found = Pod.get("kr")
    both = found.exec(["sh", "-c", "echo out; echo err >&2; exit 7"], check=False)
    equal((both.stdout, both.stderr, both.returncode), (b"out\n", b"err\n", 7))
    # The library has no standard input: it asks for the protocol v4, and refuses to write with less than v5.
    lines = found.exec(["seq", "1", "100000"]).stdout
    equal((len(lines.splitlines()), lines[-7:]), (100_000, b"100000\n"))
    refused(Exception, lambda: found.exec(["false"]))


def port_forward():
    with Pod.get("kr").portforward(8080, local_port="auto") as port:
        for _ in range(3):
            equal(page(port), "hello\n")


def logs():
    found = Pod.get("kr")
    equal(list(found.logs()), ["line 1", "line 2", "line 3"])
    equal(list(found.logs(tail_lines=1)), ["line 3"])
    assert next(found.logs(timestamps=True)).startswith("20")
    lines = []
    for line in found.logs(follow=True):
        lines.append(line)
        if line == "line 3":
            found.exec(["sh", "-c", "echo late >/proc/1/fd/1"])
        if line == "late":
            break
    equal(lines, ["line 1", "line 2", "line 3", "late"])
    found.delete(force=True)
    found.wait("delete", timeout=60)


class Client:
    def create(self, name):
        created = ConfigMap(config_map(name, {"test": "death"}, round="0"))
        created.create()
        return created.metadata.uid

    def patch(self, name):
        ConfigMap(config_map(name)).patch({"data": {"round": "1"}})

    def get(self, name):
        found = ConfigMap.get(name)
        return found.metadata.uid, found.data["round"]

    def listed(self):
        found = kr8s.get("configmaps", label_selector="test=death")
        return {item.name: (item.metadata.uid, item.data["round"]) for item in found}

    def watch(self):
        since = None
        while True:
            try:
                for kind, found in api.watch("configmaps", label_selector="test=death", since=since):
                    since = found.metadata.resourceVersion
                    yield kind, found.name, found.metadata.uid, found.data["round"]
            except Exception as error:
                if not self.is_transient(error):
                    raise

    def is_transient(self, error):
        if isinstance(error, kr8s.ServerError):
            return error.response.status_code == 429 or error.response.status_code >= 500
        return isinstance(error, (httpx.HTTPError, kr8s.APITimeoutError))

    def already_exists(self, error):
        return isinstance(error, kr8s.ServerError) and error.response.status_code == 409


def leader_dies():
    leader_death.survive(Client())


run(
    discovery,
    create,
    get_and_list,
    watch_and_delete,
    patch,
    apply,
    scale,
    pod_becomes_ready,
    exec_in_pod,
    port_forward,
    logs,
    leader_dies,
)
