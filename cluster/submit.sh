#!/usr/bin/env bash
# Submit `spml-dist train CONFIG` to a Ray cluster, follow its log and exit with its status.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: cluster/submit.sh --address URL [--python PATH] [--working-dir DIR] [--no-wait] CONFIG [KEY=VALUE ...]

Runs `spml-dist train CONFIG KEY=VALUE ...` as a job on a running Ray cluster, follows its log, and exits with the
job's own status. The experiment is checked here first, so that a misspelt key costs no place in a queue.

  --address URL      the head's dashboard, such as http://HOST:8265 (or RAY_API_SERVER_ADDRESS)
  --python PATH      the interpreter on the cluster, of the same Python and Ray version (default: the one used here)
  --working-dir DIR  upload DIR and run in the copy, for a cluster that does not see this folder; output, data and
                     tracking.uri then have to be absolute paths or addresses that the cluster sees
  --no-wait          leave once the job is queued
  --help             this text

Without --working-dir nothing is uploaded: the job runs in the current folder, which head and workers must see under
the same path, and runs/ and data/ are where they would be without a cluster.

A cluster with token authentication wants its token: in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or
in ~/.ray/auth_token. The PYTHON variable chooses the interpreter here (default: .venv/bin/python, else python3),
RAY_JOB_STOP_WAIT_TIME_S the seconds that `ray job stop` gives the job to save before it kills it (default: 600).

  cluster/submit.sh --address http://head:8265 configs/gid15_scribble.yaml engine.workers=8 stream.batch=64
TEXT
}

fail() {
  echo "submit.sh: error: $*" >&2
  exit 2
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
address=${RAY_API_SERVER_ADDRESS:-}
remote_python=
working_dir=
wait_option=()
words=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --address | --python | --working-dir) [[ $# -ge 2 ]] || fail "$1 has no value; see --help" ;;&
    --address) address=$2 && shift 2 ;;
    --python) remote_python=$2 && shift 2 ;;
    --working-dir) working_dir=$2 && shift 2 ;;
    --no-wait) wait_option=(--no-wait) && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) fail "$1 is not an option; see --help" ;;
    *) words+=("$1") && shift ;;
  esac
done
[[ ${#words[@]} -ge 1 ]] || fail "no CONFIG given; see --help"
config=${words[0]}
set -- "${words[@]:1}"

local_python=${PYTHON:-$repository/.venv/bin/python}
[[ -x $local_python ]] || local_python=${PYTHON:-python3}
python=$(command -v "$local_python") || fail "$local_python is not an interpreter; set PYTHON to one with Ray"
"$python" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("ray") and u.find_spec("pydantic")))' ||
  fail "$python lacks Ray or pydantic; set PYTHON to the interpreter where spml-dist is installed"
remote_python=${remote_python:-$python}

stop_seconds=${RAY_JOB_STOP_WAIT_TIME_S:-600}
[[ $stop_seconds =~ ^[0-9]+$ ]] || fail "RAY_JOB_STOP_WAIT_TIME_S (got $stop_seconds) is not a number of seconds"

check_address() {
  case $address in
    '') fail "no --address given; it is the head's dashboard, such as http://HOST:8265" ;;
    http://* | https://*) ;;
    *://*) fail "--address (got $address) is not the dashboard's; give http://HOST:8265" ;;
    *) address=http://$address ;;
  esac
  address=${address%/}
}

# The resolved experiment as JSON in $resolved; its mistakes are reported by spml-dist itself.
check_config() {
  resolved=$(mktemp)
  trap 'rm -f "$resolved"' EXIT
  PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH} "$python" -m spml_dist config "$config" "$@" --json "$resolved" >/dev/null || exit 2
}

check_paths() {
  [[ -d $working_dir ]] || fail "--working-dir (got $working_dir) is not a folder"
  local found
  found=$("$python" - "$resolved" <<'PYTHON'
import json, sys
values = {key: entry["value"] for key, entry in json.load(open(sys.argv[1])).items()}
for key in ("output", "data.train", "data.val", "data.test", "model.weights"):
    if values[key] and "://" not in values[key] and not values[key].startswith("/"):
        sys.exit(print(f"{key} (got {values[key]})"))
if values["tracking.uri"].startswith("sqlite:///") and not values["tracking.uri"].startswith("sqlite:////"):
    print(f"tracking.uri (got {values['tracking.uri']})")
PYTHON
  )
  [[ -z $found ]] || fail "$found is relative, but the job runs in a copy that is thrown away;" \
    "give an absolute path or an address that the cluster sees"
}

# Ray looks for its token in the same places and order.
find_token() {
  local file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
  token=
  [[ ${RAY_AUTH_MODE:-token} == token ]] || return 0
  if [[ -n ${RAY_AUTH_TOKEN:-} ]]; then
    token=$RAY_AUTH_TOKEN
    token_source=RAY_AUTH_TOKEN
  elif [[ -r $file && -f $file ]]; then
    token=$(<"$file")
    token_source=$file
  elif [[ -n ${RAY_AUTH_TOKEN_PATH:-} ]]; then
    fail "RAY_AUTH_TOKEN_PATH (got $RAY_AUTH_TOKEN_PATH) is not a file that can be read"
  fi
  [[ -z $token ]] || export RAY_AUTH_MODE=token
}

# ask PATH: the head's answer, as "STATUS BODY", or "unreachable REASON".
ask() {
  TOKEN=$token "$python" - "$address$1" <<'PYTHON'
import os, sys, urllib.error, urllib.request
token = os.environ["TOKEN"].strip()
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {token}"} if token else {})
try:
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.reason)
except (OSError, ValueError) as error:
    print("unreachable", getattr(error, "reason", error))
PYTHON
}

check_head() {
  local answer
  answer=$(ask /api/version)
  case $answer in
    200\ *ray_version*) ;;
    401\ *) fail "$address wants a token and none was found; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file" ;;
    403\ *) fail "$address refuses the token in $token_source; use the one that the head was started with" ;;
    unreachable\ *) fail "$address cannot be reached (${answer#* }); is it the dashboard of a running head?" ;;
    *) fail "$address does not answer as a Ray dashboard (got ${answer%% *}); give http://HOST:8265" ;;
  esac
}

# The command of the job, and where it runs: here, or in an uploaded copy.
submit() {
  local train=("$remote_python" -m spml_dist train) environment color=auto
  [[ -t 1 ]] || color=false
  if [[ -n $working_dir ]]; then
    local root file
    root=$(cd "$working_dir" && pwd -P)
    file=$(realpath "$config")
    [[ $file == "$root"/* ]] || fail "$config is not inside --working-dir $working_dir, so it would not be uploaded"
    train+=("${file#"$root"/}" "$@")
    environment='{"excludes": ["/.venv", "/.git", "/runs", "/data", "/shards/packed"],'
    environment+=' "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "'$stop_seconds'"}}'
    set -- --working-dir "$root"
  else
    # shellcheck disable=SC2016  # the inner bash expands them
    train=(bash -c 'cd "$1" && shift && exec "$@"' job "$PWD" "${train[@]}" "$config" "$@")
    environment=$("$python" -c 'import json, sys; print(json.dumps({"env_vars": dict(a.split("=", 1) for a in sys.argv[1:])}))' \
      "PYTHONPATH=$repository" "RAY_JOB_STOP_WAIT_TIME_S=$stop_seconds")
    set --
  fi
  "$python" -m ray.scripts.scripts job submit --address "$address" --submission-id "$job" "${wait_option[@]}" \
    --log-color "$color" --runtime-env-json "$environment" "$@" -- env RAY_USAGE_STATS_ENABLED=0 "${train[@]}"
}

# Ray's own exit status says only that a job failed; the head knows with which status.
finish() {
  local answer
  answer=$(ask "/api/jobs/$job")
  case $answer in
    *'"status": "SUCCEEDED"'*) exit 0 ;;
    *'"status": "FAILED"'*)
      status=$(sed -n 's/.*"driver_exit_code": \([0-9][0-9]*\).*/\1/p' <<<"$answer")
      exit "${status:-1}"
      ;;
    *'"status": "STOPPED"'*) exit 130 ;;
    200\ *)
      echo "submit.sh: the log broke off and job $job goes on; see: ray job logs --follow $job" >&2
      exit 1
      ;;
    *) exit "$1" ;;
  esac
}

export RAY_USAGE_STATS_ENABLED=0
check_address
check_config "$@"
[[ -z $working_dir ]] || check_paths
find_token
check_head
name=$(basename "${config%.*}")
job=spml-${name//[^A-Za-z0-9_-]/-}-$(date +%Y%m%d-%H%M%S)-$$
trap 'echo "submit.sh: job $job goes on; to stop it: ray job stop --address $address $job" >&2; exit 130' INT
submit "$@" && submitted=0 || submitted=$?
[[ ${#wait_option[@]} -eq 0 ]] || exit "$submitted"
finish "$submitted"
