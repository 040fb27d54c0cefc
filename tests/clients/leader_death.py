"""Writes and a watch through a client while the leader dies.

A client is an object with these methods. They make one call of the library each, with the library's own retries:
- `create(name)` creates a ConfigMap with the label `test=death` and `data.round` 0, and returns its uid.
- `patch(name)` sets `data.round` to 1.
- `get(name)` and `listed()` return `(uid, round)` and the same of all such objects by their names.
- `watch()` yields `(type, name, uid, round)` without an end; after a broken connection it resumes as users of the
  library do.
- `is_transient(error)` and `already_exists(error)` tell errors apart.
"""

import sys
import threading
import time

from steps import equal, eventually

# Objects that are written before the leader is killed, and again when it is known to be gone.
OBJECTS = 60


def survive(client):
    seen, failed, dead = {}, [], threading.Event()
    in_background(failed, lambda: collect(client, seen))
    in_background(failed, lambda: await_death(dead))
    acknowledged = {}

    def write(name):
        uid = create(client, name)
        again_if_transient(client, lambda: client.patch(name))
        acknowledged[name] = uid

    # The watch has begun when it has reported the first object.
    write("write-first")
    eventually("the watch to begin", lambda: failed or "write-first" in seen)
    for number in range(OBJECTS):
        write(f"write-before-{number:03}")
    print("kill the leader", flush=True)
    number = 0
    while not dead.is_set():
        assert not failed, failed
        write(f"write-while-{number:05}")
        number += 1
    for number in range(OBJECTS):
        write(f"write-after-{number:03}")

    stored = again_if_transient(client, client.listed)
    equal(stored, {name: (uid, "1") for name, uid in acknowledged.items()})
    # Each object was created once and changed once, also if the client had to repeat a call.
    complete = lambda name, uid: seen.get(name, [])[-1:] == [("MODIFIED", uid, "1")]
    eventually("the watch to end", lambda: failed or all(complete(*written) for written in acknowledged.items()))
    assert not failed, failed
    for name, uid in acknowledged.items():
        if name != "write-first":
            equal((name, seen[name]), (name, [("ADDED", uid, "0"), ("MODIFIED", uid, "1")]))
        print(f"acknowledged {name} {uid}", flush=True)


def in_background(failed, work):
    def run():
        try:
            work()
        except BaseException as error:
            failed.append(repr(error))

    threading.Thread(target=run, daemon=True).start()


def await_death(dead):
    """The test says on the standard input when the leader's process is gone."""
    equal(sys.stdin.readline(), "killed\n")
    dead.set()


def collect(client, seen):
    for kind, name, uid, round in client.watch():
        seen.setdefault(name, []).append((kind, uid, round))


def create(client, name):
    repeated = False
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.create(name)
        except Exception as error:
            if repeated and client.already_exists(error):
                # An earlier attempt, whose answer was lost, has created it.
                return again_if_transient(client, lambda: client.get(name))[0]
            if not client.is_transient(error) or time.monotonic() > deadline:
                raise
        repeated = True
        time.sleep(0.05)


def again_if_transient(client, call):
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except Exception as error:
            if not client.is_transient(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
