# Sourced by the other scripts: installs or starts their dependencies on a plain Debian 12.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/quorate/target}
# rustup installs cargo here; shells that were opened before do not have it on PATH.
export PATH=$HOME/.cargo/bin:$PATH

# shellcheck source=scripts/rocksdb.sh
. scripts/rocksdb.sh

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# need COMMAND PACKAGE...: installs the packages when the command is missing.
need() {
    command -v "$1" >/dev/null || install_packages "$@"
}

# need_file PATH PACKAGE...: installs the packages when the file is missing.
need_file() {
    [ -e "$1" ] || install_packages "$@"
}

# install_packages WHAT PACKAGE...: installs the packages that contain WHAT.
install_packages() {
    say "installing ${*:2} (for $1)"
    shift
    if [ -z "${apt_updated:-}" ]; then
        apt-get update -qq >/dev/null || die "apt-get update failed; is there a network, and are you root?"
        apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        die "cannot install $*"
}

# Installs the tools to compile the product.
need_rust() {
    command -v cargo >/dev/null || die "cargo is not on PATH; install Rust from https://rustup.rs first"
    need clang clang libclang-dev
    need g++ g++
    need_rocksdb
}

# Installs the additional tools to compile tests and benchmarks: the etcd client compiles its protocol.
need_protobuf() {
    need protoc protobuf-compiler
    need_file /usr/include/google/protobuf/descriptor.proto libprotobuf-dev
}

# step TEXT COMMAND...: prints a progress line, runs the command, and prints its duration.
step() {
    local text=$1 began=$SECONDS
    shift
    say "==> $text"
    "$@"
    say "    $((SECONDS - began)) s"
}

# Installs the dependencies of the faults in chaos runs: a C compiler for the library that moves clocks and disturbs
# syncs, and FUSE for disks that lose unsynced writes.
need_faults() {
    need cc gcc
    [ -e /dev/fuse ] || modprobe fuse 2>/dev/null || true
    if [ ! -e /dev/fuse ]; then
        say "no /dev/fuse: chaos runs skip disks that lose unsynced writes"
        export CHAOS_MAY_LEAVE_OUT=1
    fi
}

# Installs the Kubernetes clients that the tests drive: the libraries of Python and JavaScript, and the newest kubectl.
# Their versions are pinned in tests/clients; they are installed again when a pin, Python or Node.js changes.
need_clients() {
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages "python3 -m venv" python3-venv
    need node nodejs
    need npm npm
    export QUORATE_CLIENTS=${QUORATE_CLIENTS:-$HOME/.cache/quorate/clients}
    mkdir -p "$QUORATE_CLIENTS"
    local key
    key=$({ python3 --version && node --version && cat tests/clients/{requirements.txt,package-lock.json}; } | sha256sum)
    # Another run may be installing them right now.
    (
        flock 9
        [ "$(cat "$QUORATE_CLIENTS/key" 2>/dev/null)" = "$key" ] || install_clients "$key"
    ) 9>"$QUORATE_CLIENTS/lock"
}

# install_clients KEY: installs the clients, and notes KEY when they are complete.
install_clients() {
    say "installing the Kubernetes clients of Python and JavaScript, and the newest kubectl, into $QUORATE_CLIENTS"
    rm -rf "$QUORATE_CLIENTS"/{key,python,node_modules}
    python3 -m venv "$QUORATE_CLIENTS/python" || die "cannot create a virtual environment with $(python3 --version)"
    "$QUORATE_CLIENTS/python/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: \
        --requirement tests/clients/requirements.txt || die "pip cannot install the clients; is there a network?"
    cp tests/clients/package.json tests/clients/package-lock.json "$QUORATE_CLIENTS/"
    npm ci --prefix "$QUORATE_CLIENTS" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null ||
        die "npm cannot install the clients; is there a network?"
    printf '%s\n' "$1" >"$QUORATE_CLIENTS/key"
}

# Starts a Docker engine unless one answers. stop_docker stops an engine that was started here.
need_docker() {
    need dockerd docker.io
    need docker docker.io
    need iptables iptables
    if ! { [ -x /bin/busybox ] && busybox_is_static; }; then install_busybox; fi
    start_docker
    known_images=$(docker images --format '{{.Repository}}:{{.Tag}}')
}

start_docker() {
    docker info >/dev/null 2>&1 && return
    if [ "$(process_in "$docker_pidfile")" = dockerd ]; then
        # Another process has just started it, or it is busy with its containers.
        await_docker && return
        die "dockerd runs but does not answer after 60 s; see its own log"
    fi
    forget_dead_docker
    say "starting dockerd"
    docker_log=$(mktemp -t quorate-dockerd.XXXXXX.log)
    setsid dockerd >"$docker_log" 2>&1 &
    docker_pid=$!
    await_docker && return
    tail -n 5 "$docker_log" >&2
    die "dockerd does not run; its log is $docker_log"
}

docker_pidfile=/var/run/docker.pid
containerd_pidfile=/var/run/docker/containerd/containerd.pid
containerd_socket=/run/containerd/containerd.sock

# Waits up to a minute until an engine answers. Fails early if the engine that was started here has ended.
await_docker() {
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && return
        if [ -n "${docker_pid:-}" ] && ! kill -0 "$docker_pid" 2>/dev/null; then return 1; fi
        sleep 0.2
    done
    return 1
}

# process_in PIDFILE: prints the name of the process whose pid is in the file; nothing when there is no such process.
process_in() {
    local pid
    { read -r pid <"$1" || [ -n "$pid" ]; } 2>/dev/null || return 0
    cat "/proc/$pid/comm" 2>/dev/null || true
}

# Removes the files that an engine leaves behind when it is killed or its machine is copied. dockerd refuses to start
# when any process has the pid in a stale pidfile, and waits for a missing containerd when a stale socket exists.
forget_dead_docker() {
    [ "$(process_in "$docker_pidfile")" = dockerd ] || rm -f "$docker_pidfile"
    [ "$(process_in "$containerd_pidfile")" = containerd ] || rm -f "$containerd_pidfile"
    grep -q " $containerd_socket\$" /proc/net/unix || rm -f "$containerd_socket"
}

busybox_is_static() { ! ldd /bin/busybox >/dev/null 2>&1; }

install_busybox() {
    # An existing command does not suffice, because the package may have to replace a dynamic busybox.
    say "installing busybox-static"
    [ -n "${apt_updated:-}" ] || apt-get update -qq >/dev/null
    apt_updated=1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq busybox-static >/dev/null || die "cannot install busybox-static"
}

stop_docker() {
    [ -n "${docker_pid:-}" ] || return 0
    # If the engine ended by itself, its log has the reason and is kept.
    kill "$docker_pid" 2>/dev/null || return 0
    wait "$docker_pid" 2>/dev/null || true
    rm -f "$docker_log"
}

# drop_images NAME...: removes those of the images that did not exist when need_docker was called.
drop_images() {
    [ -n "${known_images+set}" ] || return 0
    local name
    for name in "$@"; do
        grep -qxF "$name" <<<"$known_images" || docker rmi "$name" >/dev/null 2>&1 || true
    done
}

# busybox_image NAME: creates an image that contains only busybox with links for all its applets.
busybox_image() {
    docker image inspect "$1" >/dev/null 2>&1 && return
    local tree
    tree=$(mktemp -d)
    mkdir -p "$tree/bin" "$tree/tmp" "$tree/etc" "$tree/var" "$tree/proc" "$tree/sys" "$tree/dev"
    cp /bin/busybox "$tree/bin/busybox"
    local applet
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
    done
    printf 'root:x:0:0:root:/:/bin/sh\n' >"$tree/etc/passwd"
    tar -C "$tree" -c . | docker import --change 'ENV PATH=/bin' --change 'CMD ["/bin/sh"]' - "$1" >/dev/null
    rm -rf "$tree"
}
