# Sourced by the scripts beside it: what they need on a plain Debian 12, installed or started when it is missing.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/quorate/target}
# Where rustup puts cargo, for shells that were opened before it was installed.
export PATH=$HOME/.cargo/bin:$PATH

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# need COMMAND PACKAGE...: installs the packages when the command is missing.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    say "installing $* (for $command)"
    if [ -z "${apt_updated:-}" ]; then
        apt-get update -qq >/dev/null || die "apt-get update failed; is there a network, and are you root?"
        apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        die "cannot install $*"
}

need_rust() {
    command -v cargo >/dev/null || die "cargo is not on PATH; install Rust from https://rustup.rs first"
    need clang clang libclang-dev
    need g++ g++
}

# Starts a Docker engine unless one answers; what was started here is stopped by stop_docker.
need_docker() {
    need dockerd docker.io
    need docker docker.io
    need iptables iptables
    [ -x /bin/busybox ] && busybox_is_static || install_busybox
    docker info >/dev/null 2>&1 && return
    say "starting dockerd"
    docker_log=$(mktemp -t quorate-dockerd.XXXXXX.log)
    setsid dockerd >"$docker_log" 2>&1 &
    docker_pid=$!
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$docker_pid" 2>/dev/null || die "dockerd ended; its log is $docker_log"
        sleep 0.1
    done
    die "dockerd does not answer after 30 s; its log is $docker_log"
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
    kill "$docker_pid" 2>/dev/null || return 0
    wait "$docker_pid" 2>/dev/null || true
    rm -f "$docker_log"
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
