# shellcheck shell=bash disable=SC2154
# What scripts/bench measures with: a PostgreSQL that really writes, the stand-in main API, the service, pgbench.
# Needs services.sh and packages.sh; the rows themselves are in scripts/bench.

# real_disk FOLDER : fails where a commit would only reach memory.
real_disk() {
  case $(stat -f -c %T "$1") in
    tmpfs | ramfs) fail "$1 is in memory; set TMPDIR to a folder on a disk, or commits cost nothing" ;;
  esac
}

# start_bench_postgres OPTION…: sets postgres_pid and postgres_port. Commits are durable; what makes checkpoints rare is what
# any production server of this size has.
start_bench_postgres() {
  local bin data=$work/postgres
  bin=$(postgres_bin) || fail "PostgreSQL's server programs are missing"
  mkdir -p "$data"
  if [ "$(id -u)" -eq 0 ]; then chown "$unprivileged" "$data"; fi
  (cd "$work" && run_unprivileged "$bin/initdb" -D "$data/data" -U bench --auth=trust -E UTF8 --no-locale) \
    </dev/null >"$work/initdb.log" 2>&1 || {
    cat "$work/initdb.log" >&2
    fail "initdb failed"
  }
  run_bench_postgres "$@"
}

# run_bench_postgres OPTION… : the server over the data that there is, with further options of its own.
run_bench_postgres() {
  local bin data=$work/postgres port
  bin=$(postgres_bin)
  local options=(-c listen_addresses=127.0.0.1 -c max_connections=100 -c fsync=on -c synchronous_commit=on
    -c full_page_writes=on -c shared_buffers=1GB -c max_wal_size=8GB -c checkpoint_timeout=30min)
  if [ "$statements" = yes ]; then options+=(-c shared_preload_libraries=pg_stat_statements); fi
  options+=("$@")
  for _ in 1 2 3 4 5; do
    port=$(free_port)
    local command=("$bin/postgres" -D "$data/data" -p "$port" -k "$data" "${options[@]}")
    # --pdeathsig must come after the change of account, which would clear it.
    if [ "$(id -u)" -eq 0 ]; then
      command=(setpriv --reuid "$unprivileged" --regid "$(id -g "$unprivileged")" --clear-groups --pdeathsig INT --
        "${command[@]}")
    fi
    start_service postgres "${command[@]}"
    postgres_pid=${service_pids[-1]}
    postgres_port=$port
    if wait_until 30 "$postgres_pid" "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; then return; fi
  done
  tail -n 20 "$work/postgres.log" >&2
  fail "PostgreSQL did not start"
}

database() { echo "postgresql://bench@127.0.0.1:$postgres_port/$1"; }

# sql DATABASE ARGUMENT… : psql that stops at the first error.
sql() {
  local name=$1
  shift
  psql -X -q -v ON_ERROR_STOP=1 "$(database "$name")" "$@"
}

# new_database NAME : an empty one; sets database_url.
new_database() {
  PGOPTIONS='-c client_min_messages=warning' sql postgres -c "drop database if exists $1 with (force)" \
    -c "create database $1"
  database_url=$(database "$1")
}

start_bench_redis() {
  redis_url=
  if [ "$use_redis" = no ]; then return 0; fi
  if ! command -v redis-server >/dev/null; then
    say "no Redis here: the service runs without"
    return 0
  fi
  local port
  for _ in 1 2 3 4 5; do
    port=$(free_port)
    start_service redis redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
    redis_pid=${service_pids[-1]}
    if wait_until 10 "$redis_pid" redis-cli -h 127.0.0.1 -p "$port" ping; then
      redis_url=redis://127.0.0.1:$port/0
      return 0
    fi
  done
  fail "Redis did not start"
}

start_main_api() {
  main_api_port=$(free_port)
  main_api=http://127.0.0.1:$main_api_port
  start_service main-api "$loadtest" main-api --port "$main_api_port"
  wait_until 10 "${service_pids[-1]}" bash -c "exec 3<>/dev/tcp/127.0.0.1/$main_api_port" ||
    fail "the stand-in main API did not start"
}

# service_environment : the service's whole environment, one variable a line. Limits per user are off: a load
# generator's users are busier than people.
service_environment() {
  printf '%s\n' "PATH=$PATH" "HOST=127.0.0.1" "PORT=$service_port" "DATABASE_URL=$database_url" \
    "MAIN_API_URL=$main_api/api/v1" "DATA_DIR=$work/data" "UPLOAD_DIR=$work/uploads" "LOG_LEVEL=warn" \
    "RATE_LIMIT_MESSAGES=0" "RATE_LIMIT_CONVERSATIONS=0" "RATE_LIMIT_TYPING=0" "RATE_LIMIT_READS=0" \
    "MAX_CONNECTIONS=0" "MAX_UNAUTHENTICATED_PER_IP=0"
  if [ -n "$redis_url" ]; then echo "REDIS_URL=$redis_url"; fi
  if [ ${#extra_environment[@]} -gt 0 ]; then printf '%s\n' "${extra_environment[@]}"; fi
}

# start_messaging [NAME] : sets url and service_pid; its log is NAME's.
start_messaging() {
  local environment name=${1:-messaging}
  service_port=$(free_port)
  url=http://127.0.0.1:$service_port
  mapfile -t environment < <(service_environment)
  mkdir -p "$work/data" "$work/uploads"
  start_service "$name" env -i "${environment[@]}" "$messaging" serve
  service_pid=${service_pids[-1]}
  wait_until 30 "$service_pid" curl -sf -o /dev/null "$url/ready" || {
    tail -n 20 "$work/$name.log" >&2
    fail "the service did not become ready"
  }
}

# stop_messaging : ends the service alone, and waits.
stop_messaging() {
  [ -n "${service_pid:-}" ] || return 0
  stop_one TERM "$service_pid"
  service_pid=
}

# stop_one SIGNAL PID : ends one of what was started, and waits.
stop_one() {
  kill "-$1" "$2" 2>/dev/null || true
  wait "$2" 2>/dev/null || true
  local left=() pid
  for pid in "${service_pids[@]}"; do
    [ "$pid" = "$2" ] || left+=("$pid")
  done
  service_pids=("${left[@]}")
}

# load NAME MODE ARGUMENT… : one run of the load generator against the service, bounded in time. Its figures go to
# $out/NAME.json and NAME.html. Fails when the checker found something.
load() {
  local name=$1 mode=$2 code=0
  shift 2
  local watch=()
  if [ -n "${service_pid:-}" ]; then watch+=(--pid "$service_pid"); fi
  if [ "$mode" = echo ]; then watch=(); else watch+=(--watch "postgres=$postgres_pid" --url "$url"); fi
  if [ -n "$redis_url" ] && [ "$mode" != echo ]; then watch+=(--watch "redis=$redis_pid"); fi
  run_bounded 400 "$loadtest" "$mode" "${watch[@]}" --json "$out/$name.json" --report "$out/$name.html" "$@" \
    2>"$out/$name.log" >"$out/$name.txt" || code=$?
  if [ "$verbose" = yes ] || [ "$code" -ne 0 ]; then cat "$out/$name.txt"; fi
  if [ "$code" -ne 0 ]; then
    tail -n 5 "$out/$name.log" >&2
    [ "$code" -eq 1 ] || say "$name could not be run"
    problems+=("$name")
  fi
  return "$code"
}

# run_bounded SECONDS COMMAND… : ended when it takes longer; waited for so that a signal is answered at once.
run_bounded() {
  local seconds=$1 code=0
  shift
  timeout --kill-after=10 "$seconds" "$@" </dev/null &
  child=$!
  wait "$child" || code=$?
  child=
  return "$code"
}

# figure RUN NAME : a number out of RUN's JSON; empty if it is not there.
figure() { "$loadtest" figure "$out/$1.json" "$2" 2>/dev/null || true; }

# latency RUN NAME PERCENTILE : of a latency, in milliseconds.
latency() { "$loadtest" figure "$out/$1.json" "$2" --percentile "$3" 2>/dev/null || true; }

# pgbench_rate NAME ARGUMENT… : transactions a second; pgbench's whole answer goes to $out/NAME.txt.
pgbench_rate() {
  local name=$1 bin
  shift
  bin=$(postgres_bin)
  PGOPTIONS='-c client_min_messages=warning' run_bounded 120 "$bin/pgbench" -n -M prepared "$@" "$(database limits)" \
    >"$out/$name.txt" 2>"$out/$name.log" || {
    tail -n 5 "$out/$name.log" >&2
    say "pgbench failed: $name" >&2
    return 1
  }
  sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$out/$name.txt"
}

# calc EXPRESSION : of awk, printed with so many digits as it needs.
calc() { awk "BEGIN { printf \"%.6g\", $1 }"; }

# short NUMBER : as people read it; nothing stays nothing.
short() {
  [ -z "$1" ] || awk -v value="$1" 'BEGIN {
    if (value >= 100) { whole = sprintf("%.0f", value); while (match(whole, /[0-9][0-9][0-9][0-9]($|,)/)) {
      whole = substr(whole, 1, RSTART) "," substr(whole, RSTART + 1) }; print whole }
    else printf "%.3g\n", value }'
}

# holds EXPRESSION
holds() { awk "BEGIN { exit !($1) }"; }
