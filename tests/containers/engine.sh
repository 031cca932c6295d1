#!/usr/bin/env bash
# Run a command with a Docker engine: engine.sh COMMAND [ARGUMENT...]
#
# Where an engine with compose answers, this is COMMAND and nothing else. Elsewhere, on a Debian machine and as root, an
# engine of its own is started for the time of COMMAND: packages from the machine's apt sources (of the suite after its
# own, whose engine is new enough; unpacked beside the system), a socket, data and a network of its own, and a base
# image that stands in for the official one, so that nothing is pulled. Where that cannot be done, COMMAND runs all the
# same and finds the reason in MNIST1D_NO_ENGINE.
#
#   MNIST1D_ENGINE_DIR   what is kept between runs: packages, images, build cache (/var/tmp/mnist1d-engine)
set -euo pipefail

DIR=${MNIST1D_ENGINE_DIR:-/var/tmp/mnist1d-engine}
RUN=/run/mnist1d-engine
NEXT_SUITE=trixie
BASE=python:3.11-slim-bookworm
PACKAGES=(docker.io docker-cli docker-buildx docker-compose containerd tini)
ROOT=$DIR/root

say() { printf 'engine: %s\n' "$*" >&2; }

go_without() {
  export MNIST1D_NO_ENGINE=$1
  say "none: $1"
  shift
  exec "$@"
}

answers() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

apt_quietly() { apt-get -qq -o APT::Sandbox::User=root "$@" >>"$DIR/apt.log" 2>&1; }

# A line of sources.list for a suite, from the machine's own mirror.
source_of() {
  local mirror
  # shellcheck disable=SC2016  # apt's, not the shell's
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Codename: bookworm' 'Component: main' | head -1)
  [ -n "$mirror" ] || return 1
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main"
}

get_engine() {
  if [ -x "$ROOT/usr/sbin/dockerd" ] && command -v iptables runc mmdebstrap >/dev/null; then return; fi
  apt_quietly update || return 1
  apt_quietly install -y --no-install-recommends iptables runc mmdebstrap ca-certificates || return 1
  if [ -x "$ROOT/usr/sbin/dockerd" ]; then return; fi
  local state=$DIR/apt options
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/debs"
  source_of "$NEXT_SUITE" >"$state/next.list" || return 1
  options=(-o "Dir::Etc::SourceList=$state/next.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$state/lists" -o "Dir::Cache=$state/cache")
  apt_quietly "${options[@]}" update || return 1
  (cd "$state/debs" && apt_quietly "${options[@]}" download "${PACKAGES[@]}") || return 1
  rm -rf "$ROOT.part"
  local package
  for package in "$state"/debs/*.deb; do dpkg-deb -x "$package" "$ROOT.part" || return 1; done
  mkdir -p "$DIR/config"
  printf '{"cliPluginsExtraDirs": ["%s/usr/libexec/docker/cli-plugins"]}\n' "$ROOT" >"$DIR/config/config.json"
  ln -sf tini-static "$ROOT.part/usr/bin/docker-init"
  rm -rf "$state" && mv "$ROOT.part" "$ROOT"
}

start_engine() {
  mkdir -p "$RUN"
  cat /proc/sys/net/ipv4/ip_forward >"$RUN/ip_forward"
  iptables -S FORWARD 2>/dev/null | head -1 >"$RUN/forward"
  setsid dockerd --config-file "$DIR/daemon.json" --data-root "$DIR/data" --exec-root "$RUN/exec" --pidfile "$RUN/dockerd.pid" \
    -H "$DOCKER_HOST" >"$DIR/dockerd.log" 2>&1 </dev/null &
  ENGINE=$!
  local waited
  for ((waited = 0; waited < 120; waited++)); do
    if answers; then return; fi
    kill -0 "$ENGINE" 2>/dev/null || break
    sleep 0.25
  done
  return 1
}

stop_engine() {
  [ -n "${ENGINE:-}" ] || return 0
  kill "$ENGINE" 2>/dev/null || :
  local waited
  for ((waited = 0; waited < 120; waited++)); do
    kill -0 "$ENGINE" 2>/dev/null || break
    sleep 0.25
  done
  kill -9 "$ENGINE" 2>/dev/null || :
  # dockerd leaves its bridge, its rules and the setting they need.
  ip link delete docker0 2>/dev/null || :
  iptables-save | grep -vi docker | iptables-restore || :
  grep -q ACCEPT "$RUN/forward" && iptables -P FORWARD ACCEPT
  cat "$RUN/ip_forward" >/proc/sys/net/ipv4/ip_forward
  rm -rf "$RUN"
}

# The same Debian release, Python minor and paths as the official image; not the same bytes. The machine's own
# certificates and pip settings go in, so that a build reaches what the machine reaches.
make_base() {
  docker image inspect "$BASE" >/dev/null 2>&1 && return
  local index
  index=$(python3 -m pip config get global.index-url 2>/dev/null) || index=
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n%s\n' "${index:+index-url = $index}" >"$DIR/pip.conf"
  source_of bookworm >"$DIR/base.list" || return 1
  # shellcheck disable=SC2016  # $1 is for the hook
  mmdebstrap --quiet --mode=root --variant=minbase --format=tar \
    --include=ca-certificates,netbase,tzdata,python3.11,python3.11-venv \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -rf "$1/usr/lib/python3.11/EXTERNALLY-MANAGED" "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
    --customize-hook='chroot "$1" python3.11 -m venv /usr/local' \
    --customize-hook='cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"' \
    --customize-hook="copy-in $DIR/pip.conf /etc" \
    bookworm "$DIR/base.tar" "$DIR/base.list" >>"$DIR/apt.log" 2>&1 || return 1
  docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    --change 'CMD ["python3"]' "$DIR/base.tar" "$BASE" >/dev/null
  rm -f "$DIR/base.tar"
}

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT...]" >&2; exit 2; }
if answers; then exec "$@"; fi
[ "$(id -u)" = 0 ] || go_without "no engine answers, and only root may start one" "$@"
grep -qs bookworm /etc/os-release || go_without "no engine answers, and only on Debian 12 one can be made" "$@"

mkdir -p "$DIR"
exec 9>"$DIR/lock"
flock -n 9 || go_without "another run uses the engine in $DIR" "$@"
export DOCKER_HOST=unix://$RUN/docker.sock DOCKER_CONFIG=$DIR/config PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH
echo '{}' >"$DIR/daemon.json"
trap stop_engine EXIT
began=$SECONDS
get_engine || go_without "its packages are not to be had: $(tail -1 "$DIR/apt.log")" "$@"
start_engine || { reason=$(grep -E 'level=(error|fatal)|failed' "$DIR/dockerd.log" | tail -1); stop_engine; go_without "dockerd does not start: $reason" "$@"; }
make_base || { stop_engine; go_without "no base image: $(tail -1 "$DIR/apt.log")" "$@"; }
say "$(docker version --format '{{.Server.Version}}'), $(docker info --format '{{.Driver}}'), ready after $((SECONDS - began)) s"
"$@" 9>&-
