#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, in at most eight minutes, with a summary at the end.
#
#   scripts/gpu_check.sh                       all parts; results in runs/gpu-check, read summary.md there
#   scripts/gpu_check.sh tests sweep           only these parts
#   scripts/gpu_check.sh --seconds 1800        with more time: 1,024 environments beside Stable-Baselines3 too
#   scripts/gpu_check.sh --wheels DIR          first installs the wheels of DIR, without the network
#   scripts/gpu_check.sh --device cpu --tiny   tries the script itself out
#
# Parts: tests (marked gpu); bench-256 and bench-1024 (rl-scaling bench atari, with Stable-Baselines3); envs-256,
# envs-1024 and envs-4096 (environments started, training speed, memory against its estimate); sweep (as many frames of
# Pong as the time allows). A part that fails or runs out of time is said to have, and stops no other.
#
# An emulator takes about 0.15 s to start, one after the other in a process, which is most of the time: all parts start
# theirs side by side, and one at a time measures speed. PYTHON=... names the interpreter (default: .venv/bin/python,
# else python3); --out DIR the folder of the results.
set -u

all=(tests bench-256 envs-256 envs-1024 envs-4096 bench-1024 sweep)
# What four starts of 1,024 environments one after the other take, and 1,024 processes of Stable-Baselines3.
seconds_of_bench_1024=1500

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

main() {
  out=runs/gpu-check budget=480 device=cuda tiny=0 wheels='' chosen=()
  while (($#)); do
    case $1 in
      --help | -h) usage && exit ;;
      --tiny) tiny=1 ;;
      --out | --seconds | --device | --wheels)
        (($# > 1)) || refuse "$1 needs a value"
        case $1 in
          --out) out=$2 ;;
          --seconds) budget=$2 ;;
          --device) device=$2 ;;
          --wheels) wheels=$2 ;;
        esac
        shift
        ;;
      *)
        [[ " ${all[*]} " == *" $1 "* ]] || refuse "$1 is no part: give some of ${all[*]}"
        chosen+=("$1")
        ;;
    esac
    shift
  done
  [[ $budget =~ ^[0-9]+$ ]] && ((budget >= 30)) || refuse "--seconds is $budget: give 30 or more"
  ((${#chosen[@]})) || chosen=("${all[@]}")
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  python=${PYTHON:-}
  [[ -n $python ]] || { [[ -x $here/.venv/bin/python ]] && python=$here/.venv/bin/python || python=python3; }
  mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
  rm -rf "$out"/*.json "$out"/*.txt "$out"/*.exit "$out"/summary.md "$out"/sweep
  cd "$here" || exit 1
  export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} OMP_WAIT_POLICY=passive
  if [[ -n $wheels ]]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$out/site" "$wheels"/*.whl || exit 1
    export PYTHONPATH=$PYTHONPATH:$out/site
  fi
  running=()
  trap 'stop; summarise; exit 1' INT TERM
  check
  summarise
  grep -lvx 0 "$out"/*.exit >/dev/null 2>&1 && exit 1
  exit 0
}

refuse() {
  echo "$1" >&2
  exit 2
}

left() {
  echo $((budget - SECONDS))
}

# Hand the signal on to what runs, through the `timeout` of each part, and wait until it is gone.
stop() {
  local pid
  trap '' INT TERM
  for pid in "${running[@]}"; do pkill -TERM -P "$pid"; done
  wait
}

# start NAME SECONDS COMMAND...: a part beside what runs already.
start() {
  part "$@" &
  running+=($!)
}

# part NAME SECONDS COMMAND...: stdout to NAME.json, the rest to NAME.txt, what became of it to NAME.exit.
part() {
  local name=$1 limit=$2 began=$SECONDS code
  shift 2
  [[ " ${chosen[*]} " == *" $name "* ]] || return 0
  ((limit > 5)) || limit=5
  echo "$name: at most $limit s" >&2
  echo "$*" >"$out/$name.txt"
  if [[ $name == tests ]]; then
    timeout -k 5 "$limit" "$@" >>"$out/$name.txt" 2>&1
  else
    timeout -k 5 "$limit" "$@" >"$out/$name.json" 2>>"$out/$name.txt"
  fi
  code=$?
  echo "$code" >"$out/$name.exit"
  echo "$((SECONDS - began))" >"$out/$name.seconds"
  echo "$name: exit $code after $((SECONDS - began)) s" >&2
}

check() {
  local small=256 large=1024 largest=4096 bench=(--seconds 4 --rounds 1) lasts=4
  local sweep=(--num-envs 16 64 128 --frames 1e6 --goals -20 -19 -18)
  if ((tiny)); then
    small=2 large=4 largest=6 bench=(--network small --seconds 0.1 --rounds 1) lasts=0.2
    sweep=(--num-envs 2 4 --frames 200 --goals -21 --workers 2)
  fi
  local envs=("$python" scripts/gpu_memory.py --device "$device" --lock "$out/lock" --seconds "$lasts")
  ((tiny)) && envs+=(--network small --threads 1)
  local atari=("$python" -m rl_scaling bench atari --device "$device" --json "${bench[@]}")

  start envs-4096 $(($(left) - 10)) "${envs[@]}" --num-envs $largest --start-seconds $(($(left) - 40))
  local last=$!
  start envs-1024 $(($(left) - 30)) "${envs[@]}" --num-envs $large --start-seconds $(($(left) - 60))
  start envs-256 $(($(left) - 30)) "${envs[@]}" --num-envs $small --start-seconds $(($(left) - 60))
  start tests $(($(left) / 2)) "$python" -m pytest -q -p no:cacheprovider -m gpu tests
  # Its lock is held from the start: what starts faster waits for it, so that nothing else is measured meanwhile.
  start bench-256 $(($(left) * 7 / 10)) flock "$out/lock" "${atari[@]}" --num-envs $small
  local pid
  for pid in "${running[@]}"; do [[ $pid == "$last" ]] || wait "$pid"; done
  if ((budget >= seconds_of_bench_1024 || tiny)); then
    start bench-1024 $(($(left) * 2 / 3)) "${atari[@]}" --num-envs $large
    wait $!
  elif [[ " ${chosen[*]} " == *" bench-1024 "* ]]; then
    echo "left out: it takes --seconds $seconds_of_bench_1024 or more, and a gigabyte for every three environments of \
Stable-Baselines3" >"$out/bench-1024.txt"
  fi
  local minutes
  minutes=$("$python" -c "print(max(0.1, ($(left) - 40) / 60))")
  start sweep $(($(left) - 15)) "$python" -m rl_scaling sweep atari --game Pong --network small --rates 2 \
    --extensions 0 "${sweep[@]}" --device "$device" --minutes "$minutes" --out "$out/sweep" --json
  wait
}

# summary.md: the machine, then every part with its figures; the end of what it said where it failed.
summarise() {
  {
    echo "# GPU check, $(date -u +%FT%TZ)"
    echo
    echo '```'
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
    echo "$(nproc) CPUs, $(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo 2>/dev/null) of memory"
    "$python" -c 'import platform, torch; print("Python", platform.python_version(), "torch", torch.__version__)' 2>&1
    git rev-parse HEAD 2>/dev/null
    echo "device $device, $SECONDS of $budget s, tiny $tiny"
    echo '```'
    local name code
    for name in "${chosen[@]}"; do
      code=$(cat "$out/$name.exit" 2>/dev/null)
      echo
      case $code in
        0) echo "## $name: done in $(cat "$out/$name.seconds") s" ;;
        124 | 137) echo "## $name: ran out of time after $(cat "$out/$name.seconds") s" ;;
        '') echo "## $name: not run" ;;
        *) echo "## $name: failed, exit $code" ;;
      esac
      echo
      echo '```'
      if [[ $name == sweep ]]; then
        "$python" -m rl_scaling status "$out/sweep" 2>&1 | tail -n 25
      else
        tail -n 60 "$out/$name.json" 2>/dev/null
      fi
      [[ $code == 0 && $name != tests ]] || tail -n 25 "$out/$name.txt" 2>/dev/null
      echo '```'
    done
  } >"$out/summary.md"
  rm -f "$out"/*.seconds "$out/lock"
  echo "$out/summary.md" >&2
}

main "$@"
