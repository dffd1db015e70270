# shellcheck shell=bash disable=SC2154
# What the tests need beyond Rust: Debian's packages, npm's and PyPI's, each installed only when it is missing.
# Sourced by scripts/test. Where the services are started: services.sh.

# The directory of PostgreSQL's server programs; Debian keeps them out of PATH.
postgres_bin() {
  local candidate
  if candidate=$(command -v initdb); then
    dirname "$(readlink -f "$candidate")"
    return
  fi
  for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -Vr); do
    if [ -x "$candidate/initdb" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

find_chromium() {
  command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome
}

# A Python that can make virtual environments: the one in PATH, else Debian's, for which python3-venv is installed.
find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

missing_for_build() {
  command -v cc >/dev/null || echo build-essential
}

missing_for_services() {
  postgres_bin >/dev/null || echo postgresql
  command -v psql >/dev/null || echo postgresql-client
  command -v redis-server >/dev/null || echo redis-server
}

missing_for_interop() {
  command -v node >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
  find_python >/dev/null || echo python3-venv python3-pip
  # Sets the clock of a service under test.
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo libfaketime
}

# nginx as the load balancer, promtool for alert rules. Debian's packages may start their servers; the tests use
# neither of those.
missing_for_deploy() {
  { command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null || echo nginx-light
  command -v promtool >/dev/null || echo prometheus
}

missing_for_browser() {
  find_chromium >/dev/null || echo chromium
}

# install_debian PACKAGE… : with apt-get, as root or by sudo; a clear sentence where neither is possible.
install_debian() {
  [ $# -gt 0 ] || return 0
  local as_root=()
  if ! command -v apt-get >/dev/null; then
    fail "these are missing, and there is no apt-get to install them: $*"
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      fail "these Debian packages are missing, and only root can install them: apt-get install $*"
    as_root=(sudo)
  fi
  say "installing $*"
  # Another apt-get may be at work: wait for its lock instead of failing.
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  local log=$work/apt.log
  {
    "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"
  } </dev/null >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "apt-get could not install $*"
  }
}

# npm's packages as package-lock.json pins them, and PyPI's as requirements.txt does by hash; both stay in
# tests/interop, ignored by git, until the pins change.
install_clients() {
  local folder=$root/tests/interop
  local stamp=$folder/node_modules/.installed
  if ! cmp -s "$folder/package-lock.json" "$stamp"; then
    say "installing npm packages"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null) || fail "npm ci failed"
    cp "$folder/package-lock.json" "$stamp"
  fi
  stamp=$folder/.venv/.installed
  if ! cmp -s "$folder/requirements.txt" "$stamp"; then
    say "installing PyPI packages"
    rm -rf "$folder/.venv"
    "$(find_python)" -m venv "$folder/.venv" || fail "python3 -m venv failed"
    "$folder/.venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
      -r "$folder/requirements.txt" </dev/null || fail "pip install failed"
    cp "$folder/requirements.txt" "$stamp"
  fi
}
