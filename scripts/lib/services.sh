# shellcheck shell=bash disable=SC2154
# A PostgreSQL and a Redis to throw away: on free ports of 127.0.0.1, in a temporary folder, gone with the script.
# Sourced by scripts/test. What must be installed for them: packages.sh.

# run_unprivileged COMMAND… : PostgreSQL refuses to run as root, so root hands over to an account without rights.
run_unprivileged() {
  if [ "$(id -u)" -ne 0 ]; then
    "$@"
    return
  fi
  setpriv --reuid "$unprivileged" --regid "$(id -g "$unprivileged")" --clear-groups -- "$@"
}

unprivileged=$(id -un)
if [ "$(id -u)" -eq 0 ]; then
  unprivileged=nobody
  if id postgres >/dev/null 2>&1; then unprivileged=postgres; fi
fi

# A port that nothing listens on, below the range that outgoing connections are given.
free_port() {
  local port
  while :; do
    port=$((15000 + RANDOM % 15000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# start_service NAME COMMAND… : in the background, its output in $work/NAME.log; dies with this script even if the
# script is killed and its trap never runs.
start_service() {
  local name=$1
  shift
  (cd "$work" && exec setpriv --pdeathsig TERM -- "$@") </dev/null >"$work/$name.log" 2>&1 &
  service_pids+=($!)
}

# start_postgres: sets TEST_DATABASE_URL, a superuser's, so that each test can make its own database.
start_postgres() {
  local bin data=$work/postgres password port attempt
  bin=$(postgres_bin)
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  mkdir -p "$data"
  printf '%s' "$password" >"$work/password"
  if [ "$(id -u)" -eq 0 ]; then chown "$unprivileged" "$data" "$work/password"; fi
  (cd "$work" && run_unprivileged "$bin/initdb" -D "$data/data" -U tests --pwfile="$work/password" \
    --auth=scram-sha-256 -E UTF8 --no-locale --no-sync) </dev/null >"$work/initdb.log" 2>&1 || {
    cat "$work/initdb.log" >&2
    fail "initdb failed"
  }
  # Every test makes its own pools, hence the connections. fsync only matters when the machine loses power: tests
  # that kill the service or the server lose nothing without it.
  for attempt in 1 2 3 4 5; do
    port=$(free_port)
    start_postgres_on "$port" "$bin" "$data"
    export TEST_DATABASE_URL="postgresql://tests:$password@127.0.0.1:$port/postgres"
    if wait_until 30 "${service_pids[-1]}" "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; then return; fi
  done
  tail -n 20 "$work/postgres.log" >&2
  fail "PostgreSQL did not start in $attempt attempts"
}

start_postgres_on() {
  local command=("$2/postgres" -D "$3/data" -p "$1" -k "$3" -c listen_addresses=127.0.0.1
    -c max_connections=400 -c fsync=off -c shared_buffers=64MB)
  # --pdeathsig must come after the change of account, which would clear it.
  if [ "$(id -u)" -eq 0 ]; then
    command=(setpriv --reuid "$unprivileged" --regid "$(id -g "$unprivileged")" --clear-groups --pdeathsig INT -- "${command[@]}")
  fi
  start_service postgres "${command[@]}"
}

# start_redis: sets TEST_REDIS_URL.
start_redis() {
  local port attempt
  for attempt in 1 2 3 4 5; do
    port=$(free_port)
    start_service redis redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
    export TEST_REDIS_URL="redis://127.0.0.1:$port/0"
    if wait_until 10 "${service_pids[-1]}" redis-cli -h 127.0.0.1 -p "$port" ping; then return; fi
  done
  tail -n 20 "$work/redis.log" >&2
  fail "Redis did not start in $attempt attempts"
}

# wait_until SECONDS PID COMMAND… : until the command succeeds; fails when the process is gone or the time is over.
wait_until() {
  local tries=$(($1 * 20)) pid=$2
  shift 2
  while [ "$tries" -gt 0 ]; do
    kill -0 "$pid" 2>/dev/null || return 1
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.05
    tries=$((tries - 1))
  done
  return 1
}

# stop_services: ends them all and waits, at most ten seconds each.
stop_services() {
  local pid tries
  # PostgreSQL takes INT as "end now, cleanly"; TERM would wait for its clients.
  for pid in "${service_pids[@]}"; do kill -INT "$pid" 2>/dev/null; done
  for pid in "${service_pids[@]}"; do
    tries=100
    while kill -0 "$pid" 2>/dev/null; do
      if [ "$tries" -eq 0 ]; then
        kill -KILL "$pid" 2>/dev/null
        break
      fi
      sleep 0.1
      tries=$((tries - 1))
    done
    wait "$pid" 2>/dev/null
  done
  service_pids=()
}
