# Sourced by the scripts beside it: what they need on a plain Debian 12, installed or started when it is missing.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/quorate/target}
# Where rustup puts cargo, for shells that were opened before it was installed.
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

# need_file PATH PACKAGE...: the same for a file.
need_file() {
    [ -e "$1" ] || install_packages "$@"
}

# install_packages WHAT PACKAGE...: installs the packages that bring it.
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

# What the product itself is compiled with.
need_rust() {
    command -v cargo >/dev/null || die "cargo is not on PATH; install Rust from https://rustup.rs first"
    need clang clang libclang-dev
    need g++ g++
    need_rocksdb
}

# What tests and benchmarks are compiled with on top: the etcd client compiles its protocol.
need_protobuf() {
    need protoc protobuf-compiler
    need_file /usr/include/google/protobuf/descriptor.proto libprotobuf-dev
}

# step TEXT COMMAND...: tells what is being done and, at its end, how long it took.
step() {
    local text=$1 began=$SECONDS
    shift
    say "==> $text"
    "$@"
    say "    $((SECONDS - began)) s"
}

# What faults of the chaos runs take: a library that moves clocks and troubles syncs is compiled, and disks that lose what
# was not synced are mounted. The kernel has FUSE, or a module of it.
need_faults() {
    need cc gcc
    [ -e /dev/fuse ] || modprobe fuse 2>/dev/null || true
    if [ ! -e /dev/fuse ]; then
        say "no /dev/fuse: chaos runs do without disks that lose what was not synced"
        export CHAOS_MAY_LEAVE_OUT=1
    fi
}

# Starts a Docker engine unless one answers; what was started here is stopped by stop_docker.
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
        # It has just been started by somebody else, or is busy with its containers.
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

# Waits up to a minute until an engine answers, or until the one that was started here has ended.
await_docker() {
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && return
        if [ -n "${docker_pid:-}" ] && ! kill -0 "$docker_pid" 2>/dev/null; then return 1; fi
        sleep 0.2
    done
    return 1
}

# process_in PIDFILE: the name of the process whose number the file holds; nothing when there is none.
process_in() {
    local pid
    { read -r pid <"$1" || [ -n "$pid" ]; } 2>/dev/null || return 0
    cat "/proc/$pid/comm" 2>/dev/null || true
}

# An engine that was killed, or whose machine was copied, leaves numbers of processes and a socket behind. dockerd trusts
# a number when any process has it by now, and a socket when the file is there: then it refuses to start, or waits for a
# containerd that is not.
forget_dead_docker() {
    [ "$(process_in "$docker_pidfile")" = dockerd ] || rm -f "$docker_pidfile"
    [ "$(process_in "$containerd_pidfile")" = containerd ] || rm -f "$containerd_pidfile"
    grep -q " $containerd_socket\$" /proc/net/unix || rm -f "$containerd_socket"
}

busybox_is_static() { ! ldd /bin/busybox >/dev/null 2>&1; }

install_busybox() {
    # The package may replace a dynamic busybox, so a command that exists does not settle it.
    say "installing busybox-static"
    [ -n "${apt_updated:-}" ] || apt-get update -qq >/dev/null
    apt_updated=1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq busybox-static >/dev/null || die "cannot install busybox-static"
}

stop_docker() {
    [ -n "${docker_pid:-}" ] || return 0
    # One that ended by itself has said why in its log, which stays.
    kill "$docker_pid" 2>/dev/null || return 0
    wait "$docker_pid" 2>/dev/null || true
    rm -f "$docker_log"
}

# drop_images NAME...: removes those of the images that were not there at the time of need_docker.
drop_images() {
    [ -n "${known_images+set}" ] || return 0
    local name
    for name in "$@"; do
        grep -qxF "$name" <<<"$known_images" || docker rmi "$name" >/dev/null 2>&1 || true
    done
}

# busybox_image NAME: an image with busybox under all its names, and nothing else.
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
