"""Steps of a client's script: each is announced before it runs, so that a failure shows where it happened."""

import os
import sys
import time
import traceback
import urllib.request

IMAGE = os.environ["CLIENT_IMAGE"]


def pod(name):
    """A pod that serves a page on its localhost, prints three lines, and then stays."""
    script = (
        "mkdir /w; echo hello >/w/index.html; httpd -p 127.0.0.1:8080 -h /w; "
        "for i in 1 2 3; do echo line $i; done; exec sleep 3600"
    )
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def deployment(name, replicas):
    """A Deployment with two containers, to which a strategic merge patch applies by name."""
    containers = [{"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"]} for name in "ab"]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": containers}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def config_map(name, labels=None, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels or {}}, "data": data}


def equal(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def refused(error, call):
    """Checks that a call raises `error`, and returns the exception."""
    try:
        returned = call()
    except error as raised:
        return raised
    raise AssertionError(f"expected {error.__name__}, but the call returned {returned!r}")


def eventually(what, check, seconds=60):
    """Calls `check` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s, but {found!r}"
        time.sleep(0.05)


def page(port):
    """Reads the page of a pod at a local port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=20) as answer:
        return answer.read().decode()


def run(*steps):
    """Runs the steps, and ends the process: with 1 after the first step that fails."""
    for step in steps:
        print(f"step {step.__name__}", flush=True)
        try:
            step()
        except BaseException:
            traceback.print_exc()
            print(f"failed {step.__name__}", flush=True)
            sys.stderr.flush()
            # Threads of the client may still run.
            os._exit(1)
    print("done", flush=True)
    os._exit(0)
