"""The calls of the official Python client."""

import base64
import json
import threading
import time

import urllib3
import websocket
from kubernetes import client, config, dynamic, stream, utils, watch
from kubernetes.client.exceptions import ApiException

import leader_death
from steps import config_map, deployment, equal, eventually, pod, refused, run

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
NAMESPACE = "default"


def discovery():
    equal(client.VersionApi().get_code().minor, "36")
    names = {resource.name for resource in core.get_api_resources().resources}
    assert {"pods", "pods/exec", "configmaps", "nodes"} <= names, names
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    assert {"apps", "batch", "networking.k8s.io"} <= groups, groups
    equal(core.read_node("worker-1").status.node_info.operating_system, "linux")


def create():
    created = core.create_namespaced_config_map(NAMESPACE, config_map("py", data="1"))
    assert created.metadata.uid and created.metadata.resource_version, created
    again = refused(ApiException, lambda: core.create_namespaced_config_map(NAMESPACE, config_map("py")))
    equal((again.status, again.reason), (409, "Conflict"))
    assert '"reason":"AlreadyExists"' in again.body, again.body
    typed = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="py-"), string_data={"key": "value"})
    equal(core.create_namespaced_secret(NAMESPACE, typed).data, {"key": "dmFsdWU="})
    core.create_namespaced_config_map(NAMESPACE, config_map("py-dry"), dry_run="All")
    equal(refused(ApiException, lambda: core.read_namespaced_config_map("py-dry", NAMESPACE)).status, 404)
    # The typed call refuses the unknown field itself.
    config_maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    misspelt = {**config_map("py-dry"), "dta": {}}
    created = config_maps.create(misspelt, namespace=NAMESPACE, dry_run="All")
    assert created.metadata.uid and created.dta is None, created
    utils.create_from_dict(client.ApiClient(), {"apiVersion": "v1", "kind": "List", "items": [config_map("py-list", a="b")]})
    equal(core.read_namespaced_config_map("py-list", NAMESPACE).data, {"a": "b"})


def get_and_replace():
    found = core.read_namespaced_config_map("py", NAMESPACE)
    equal(found.data, {"data": "1"})
    found.data = {"data": "2"}
    replaced = core.replace_namespaced_config_map("py", NAMESPACE, found)
    assert replaced.metadata.resource_version != found.metadata.resource_version
    stale = refused(ApiException, lambda: core.replace_namespaced_config_map("py", NAMESPACE, found))
    assert stale.status == 409 and "the object has been modified" in stale.body, stale


def list_in_pages():
    for number in range(7):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"py-page-{number}", {"page": str(number % 2)}))
    names, more = [], None
    while True:
        found = core.list_namespaced_config_map(NAMESPACE, label_selector="page", limit=3, _continue=more)
        names += [item.metadata.name for item in found.items]
        more = found.metadata._continue
        if not more:
            break
        equal(len(found.items), 3)
    equal(names, [f"py-page-{number}" for number in range(7)])
    found = core.list_config_map_for_all_namespaces(label_selector="page in (1),page!=0")
    equal(len(found.items), 3)
    found = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=py-page-4")
    equal([item.metadata.name for item in found.items], ["py-page-4"])


def watch_and_delete():
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.delete_namespaced_config_map("py-page-0", NAMESPACE)
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page")
    watcher, events = watch.Watch(), []
    selected = {"label_selector": "page", "resource_version": version}
    for event in watcher.stream(core.list_namespaced_config_map, NAMESPACE, **selected):
        events.append((event["type"], event["object"].metadata.name))
        if len(events) == 7:
            watcher.stop()
    equal(sorted(events), [("DELETED", f"py-page-{number}") for number in range(7)])
    timed = watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, timeout_seconds=1, label_selector="page")
    equal(list(timed), [])
    gone = watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, resource_version="1", timeout_seconds=1)
    # The first revision is still kept in a young cluster, or it is reported as gone; both end.
    try:
        list(gone)
    except ApiException as error:
        equal(error.status, 410)


def patch():
    apps.create_namespaced_deployment(NAMESPACE, deployment("py", 0))
    change = {"spec": {"template": {"spec": {"containers": [{"name": "b", "env": [{"name": "X", "value": "1"}]}]}}}}
    containers = apps.patch_namespaced_deployment("py", NAMESPACE, change).spec.template.spec.containers
    equal([(c.name, bool(c.env)) for c in containers], [("a", False), ("b", True)])
    operations = [
        {"op": "test", "path": "/data/data", "value": "2"},
        {"op": "add", "path": "/metadata/labels", "value": {"patched": "json"}},
    ]
    equal(core.patch_namespaced_config_map("py", NAMESPACE, operations).metadata.labels, {"patched": "json"})
    equal(refused(ApiException, lambda: core.patch_namespaced_config_map("py", NAMESPACE, [{**operations[0], "value": "9"}])).status, 422)
    merged = core.patch_namespaced_config_map(
        "py", NAMESPACE, {"data": {"data": None, "more": "3"}}, _content_type="application/merge-patch+json"
    )
    equal(merged.data, {"more": "3"})


def apply():
    def applied(manager, data, **flags):
        body = {**config_map("py-applied", **data), "metadata": {"name": "py-applied"}}
        flags = {"field_manager": manager, "_content_type": "application/apply-patch+yaml", **flags}
        return core.patch_namespaced_config_map("py-applied", NAMESPACE, body, **flags).data

    equal(applied("one", {"a": "1", "b": "1"}), {"a": "1", "b": "1"})
    conflict = refused(ApiException, lambda: applied("two", {"a": "2"}))
    assert conflict.status == 409 and '.data.a' in conflict.body, conflict
    equal(applied("two", {"a": "2"}, force=True), {"a": "2", "b": "1"})
    equal(applied("one", {}), {"a": "2"})
    config_maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    body = {**config_map("py-applied", c="1"), "metadata": {"name": "py-applied"}}
    shared = config_maps.server_side_apply(body, namespace=NAMESPACE, field_manager="three")
    equal(dict(shared.data), {"a": "2", "c": "1"})
    managers = {entry.manager for entry in core.read_namespaced_config_map("py-applied", NAMESPACE).metadata.managed_fields}
    assert {"two", "three"} <= managers, managers


def scale_and_status():
    equal(apps.read_namespaced_deployment_scale("py", NAMESPACE).spec.replicas, 0)
    scaled = apps.patch_namespaced_deployment_scale("py", NAMESPACE, {"spec": {"replicas": 2}})
    equal(scaled.spec.replicas, 2)
    eventually("two ready pods", lambda: apps.read_namespaced_deployment_status("py", NAMESPACE).status.ready_replicas == 2)
    apps.delete_namespaced_deployment("py", NAMESPACE, propagation_policy="Foreground")
    left = lambda: core.list_namespaced_pod(NAMESPACE, label_selector="app=py").items
    eventually("the pods to be gone", lambda: not left())


def pod_becomes_ready():
    core.create_namespaced_pod(NAMESPACE, pod("py"))
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=py"):
        conditions = event["object"].status.conditions or []
        if any(condition.type == "Ready" and condition.status == "True" for condition in conditions):
            watcher.stop()
    equal(core.read_namespaced_pod("py", NAMESPACE).status.phase, "Running")


def exec_in_pod():
    call = lambda command, **flags: stream.stream(
        core.connect_get_namespaced_pod_exec,
        "py",
        NAMESPACE,
        **{"command": command, "stdout": True, "stderr": True, "stdin": False, "tty": False, **flags},
    )
    equal(call(["echo", "hello"]), "hello\n")
    shell = call(["sh"], stdin=True, _preload_content=False)
    equal(shell.subprotocol, "v5.channel.k8s.io")
    shell.write_stdin("echo out; echo err >&2\n")
    equal(shell.readline_stdout(timeout=30), "out")
    equal(shell.readline_stderr(timeout=30), "err")
    shell.write_stdin("exit 7\n")
    shell.run_forever(timeout=30)
    equal(shell.returncode, 7)
    counted = call(["wc", "-c"], stdin=True, _preload_content=False)
    for _ in range(20):
        counted.write_stdin("x" * 50_000)
    counted.close_channel(0)
    counted.run_forever(timeout=60)
    equal((counted.read_stdout().strip(), counted.returncode), ("1000000", 0))
    missing = refused(ApiException, lambda: call(["true"], container="nobody"))
    assert "nobody" in str(missing) or "400" in str(missing), missing


def port_forward():
    for _ in range(2):
        forwarded = stream.portforward(core.connect_get_namespaced_pod_portforward, "py", NAMESPACE, ports="8080")
        socket = forwarded.socket(8080)
        socket.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := socket.recv(4096):
            answer += chunk
        assert answer.endswith(b"hello\n"), answer
        equal(forwarded.error(8080), None)


def logs():
    equal(core.read_namespaced_pod_log("py", NAMESPACE), "line 1\nline 2\nline 3\n")
    equal(core.read_namespaced_pod_log("py", NAMESPACE, tail_lines=1), "line 3\n")
    assert core.read_namespaced_pod_log("py", NAMESPACE, timestamps=True).startswith("20")
    follower = watch.Watch()
    lines = []
    for line in follower.stream(core.read_namespaced_pod_log, "py", NAMESPACE):
        lines.append(line)
        if line == "line 3":
            late = ["sh", "-c", "echo late >/proc/1/fd/1"]
            stream.stream(core.connect_get_namespaced_pod_exec, "py", NAMESPACE, command=late, stdout=True, stderr=True)
        if line == "late":
            follower.stop()
    equal(lines, ["line 1", "line 2", "line 3", "late"])


def streams_over_websockets():
    settings = client.Configuration.get_default_copy()
    tls = {"ca_certs": settings.ssl_ca_cert, "certfile": settings.cert_file, "keyfile": settings.key_file}

    def opened(path, protocol):
        address = f"{settings.host.replace('https', 'wss', 1)}/api/v1/namespaces/{NAMESPACE}/{path}"
        return websocket.create_connection(address, sslopt=tls, subprotocols=[protocol], timeout=60)

    for protocol, decoded in [("binary.k8s.io", bytes), ("base64.binary.k8s.io", base64.b64decode)]:
        log, pieces = opened("pods/py/log?container=main", protocol), []
        equal(log.getsubprotocol(), protocol)
        while (message := log.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
            pieces.append(decoded(message[1]))
        equal(b"".join(pieces).decode(), core.read_namespaced_pod_log("py", NAMESPACE))
    absent = refused(websocket.WebSocketBadStatusException, lambda: opened("pods/nobody/log", "binary.k8s.io"))
    equal(absent.status_code, 404)
    unknown = refused(websocket.WebSocketBadStatusException, lambda: opened("pods/py/log", "v4.channel.k8s.io"))
    equal(unknown.status_code, 403)

    # Browsers name this protocol for every stream; a watch has messages of JSON all the same.
    events = opened("configmaps?watch=true&fieldSelector=metadata.name=py-socket", "base64.binary.k8s.io")
    for number in range(2):
        core.create_namespaced_config_map(NAMESPACE, config_map("py-socket", number=str(number)))
        core.delete_namespaced_config_map("py-socket", NAMESPACE)
    seen = [json.loads(events.recv()) for _ in range(4)]
    equal([event["type"] for event in seen], ["ADDED", "DELETED", "ADDED", "DELETED"])
    equal(seen[3]["object"]["data"], {"number": "1"})
    events.close()


def evict():
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="py", namespace=NAMESPACE))
    core.create_namespaced_pod_eviction("py", NAMESPACE, eviction)

    def gone():
        try:
            core.read_namespaced_pod("py", NAMESPACE)
        except ApiException as error:
            equal(error.status, 404)
            return True

    eventually("the evicted pod to be gone", gone)


class Client:
    create = staticmethod(
        lambda name: core.create_namespaced_config_map(
            NAMESPACE, config_map(name, {"test": "death"}, round="0")
        ).metadata.uid
    )
    patch = staticmethod(lambda name: core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"round": "1"}}))

    def get(self, name):
        found = core.read_namespaced_config_map(name, NAMESPACE)
        return found.metadata.uid, found.data["round"]

    def listed(self):
        found = core.list_namespaced_config_map(NAMESPACE, label_selector="test=death", limit=50)
        items = found.items
        while found.metadata._continue:
            found = core.list_namespaced_config_map(
                NAMESPACE, label_selector="test=death", limit=50, _continue=found.metadata._continue
            )
            items += found.items
        return {item.metadata.name: (item.metadata.uid, item.data["round"]) for item in items}

    def watch(self):
        watcher = watch.Watch()
        while True:
            resumed = {"resource_version": watcher.resource_version} if watcher.resource_version else {}
            call = (core.list_namespaced_config_map, NAMESPACE)
            try:
                for event in watcher.stream(*call, label_selector="test=death", **resumed):
                    found = event["object"]
                    yield event["type"], found.metadata.name, found.metadata.uid, found.data["round"]
            except Exception as error:
                if not self.is_transient(error):
                    raise
                time.sleep(0.05)

    def is_transient(self, error):
        if isinstance(error, ApiException):
            return error.status == 429 or error.status >= 500
        return isinstance(error, urllib3.exceptions.HTTPError)

    def already_exists(self, error):
        return isinstance(error, ApiException) and error.status == 409


def leader_dies():
    leader_death.survive(Client())


run(
    discovery,
    create,
    get_and_replace,
    list_in_pages,
    watch_and_delete,
    patch,
    apply,
    scale_and_status,
    pod_becomes_ready,
    exec_in_pod,
    port_forward,
    logs,
    streams_over_websockets,
    evict,
    leader_dies,
)
