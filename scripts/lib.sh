# shellcheck shell=bash
# What the ensure-* scripts share. Sourced, never run.
#
# The contract of every ensure-* script: stdout carries the answer (a path, or nothing) and only that, so that
# `BITCOIND=$(scripts/ensure-bitcoind)` works; all talk goes to stderr; a second run finds the work done and is quick.

# Outside the clone on purpose: CI starts from a clean clone every time and must not fetch and build its tools again.
SLUICE_CACHE=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}
mkdir -p "$SLUICE_CACHE"
SLUICE_CACHE=$(cd "$SLUICE_CACHE" && pwd)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$@"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_debian_like() { have apt-get && have dpkg; }

os_release() { # <field>: one value of /etc/os-release, empty when there is none
    [ -r /etc/os-release ] || return 0
    # shellcheck disable=SC1091,SC2154
    (. /etc/os-release && printf '%s' "${!1:-}")
}

# Fills ROOT with what has to stand before a command to run it as root, or says which command a human has to run.
need_root() { # <command, for the human>
    ROOT=(env)
    if [ "$(id -u)" = 0 ]; then return; fi
    if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        ROOT=(sudo env)
    else
        die "needs root, please run once: $*"
    fi
}

# Installs Debian packages. Asks no questions, keeps configuration files that are already there. dpkg's hundred lines go
# to a file and are only shown when something went wrong.
apt_install() {
    local log=$SLUICE_CACHE/apt.log
    local get=(apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold install)
    need_root apt-get install "$@"
    say "installing with apt: $*"
    # A machine's package lists may be missing (container images delete them) or too old to fetch from; try once as it is.
    "${ROOT[@]}" DEBIAN_FRONTEND=noninteractive "${get[@]}" "$@" >"$log" 2>&1 && return 0
    say "not with the package lists as they are: fetching new ones"
    "${ROOT[@]}" apt-get -qq update >&2
    "${ROOT[@]}" DEBIAN_FRONTEND=noninteractive "${get[@]}" "$@" >"$log" 2>&1 && return 0
    tail -n 20 "$log" >&2
    die "apt could not install: $*"
}

# Holds a lock until the script ends, so that two runs (two terminals, two CI jobs) do not build the same thing twice.
lock() { # <name>
    have flock || return 0
    exec 9>"$SLUICE_CACHE/$1.lock"
    flock -n 9 && return 0
    say "another run is at work on this, waiting for it"
    flock 9
}
