#!/usr/bin/env bash
# The long measurements behind docs/results.md, one after the other, cheapest and most informative first.
#
#   scripts/campaign.sh                       everything, into campaign/; run again, it resumes
#   scripts/campaign.sh minatar published     only steps whose names begin so
#   scripts/campaign.sh --list                what is done, begun and waiting
#   scripts/campaign.sh --commands            the commands alone
#   scripts/campaign.sh DIR/ ...              another folder for the stores; it has a slash in it
#
# WORKERS=N trials side by side (default: every core); NICE=N (default 19). A step that fails does not stop the next.
# Ctrl-C or SIGTERM stops the whole: the trials save themselves. Output goes to logs/STEP.log in the folder. Every line
# is a plain command that can be typed by itself in that folder. All of it takes days on two cores.
set -u

# step NAME STORE COMMAND...: a name, the folder whose runs tell how far it is, and the command.
campaign() {
  # Noise scales of weights that are kept: of seven games at the start, of three at a goal and at the end of a run.
  step noise-start noise-frozen rl-scaling measure --game all --network small --seeds 0 1 --out noise-frozen
  step noise-breakout noise-goals/breakout rl-scaling train a2c --game Breakout --network small \
    --no-rmsprop-epsilon-inside-root --num-envs 8 --learning-rate 1.43e-3 --frames 3e5 --measure-at goals --goals 2 6 \
    --out noise-goals/breakout
  step noise-spaceinvaders noise-goals/spaceinvaders rl-scaling train a2c --game SpaceInvaders --network small \
    --no-rmsprop-epsilon-inside-root --num-envs 8 --learning-rate 1.43e-3 --frames 4e5 --measure-at goals --goals 225 \
    --out noise-goals/spaceinvaders
  step noise-qbert noise-goals/qbert rl-scaling train a2c --game Qbert --network small \
    --no-rmsprop-epsilon-inside-root --num-envs 8 --learning-rate 1.43e-3 --frames 4e5 --measure-at goals --goals 300 \
    --out noise-goals/qbert

  # MinAtar: batches of 20 to 20,480 frames (PPO: 64 to 6,400), five rates, three seeds at every point. Freeway by
  # itself: its games of 2,501 steps are cut, or large batches would see none end.
  step minatar-a2c minatar-a2c rl-scaling sweep rl \
    --game minatar/breakout minatar/asterix minatar/space_invaders minatar/seaquest --algorithm a2c \
    --num-envs 4 16 64 256 1024 4096 --rates 5 --extensions 1 --seeds 0 1 2 --reference-rate 2e-3 --frames 1e6 \
    --noise-every-updates 10 --out minatar-a2c
  step minatar-ppo minatar-ppo rl-scaling sweep rl \
    --game minatar/breakout minatar/asterix minatar/space_invaders minatar/seaquest --algorithm ppo \
    --num-envs 2 6 20 64 200 --rates 5 --extensions 1 --seeds 0 1 2 --frames 1e6 --noise-every-updates 10 \
    --out minatar-ppo
  step minatar-freeway-a2c minatar-freeway-a2c rl-scaling sweep rl --game minatar/freeway --algorithm a2c \
    --max-episode-steps 500 --max-start-steps 500 --goals 1 2 3 4 5 6 7 8 \
    --num-envs 4 16 64 256 1024 4096 --rates 5 --extensions 1 --seeds 0 1 2 --reference-rate 2e-3 --frames 1e6 \
    --noise-every-updates 10 --out minatar-freeway-a2c
  step minatar-freeway-ppo minatar-freeway-ppo rl-scaling sweep rl --game minatar/freeway --algorithm ppo \
    --max-episode-steps 500 --max-start-steps 500 --goals 1 2 3 4 5 6 7 8 \
    --num-envs 2 6 20 64 200 --rates 5 --extensions 1 --seeds 0 1 2 --frames 1e6 --noise-every-updates 10 \
    --out minatar-freeway-ppo

  # PPO to Pong's and Breakout's first goals, small network; a second seed at the best rates.
  step pong-ppo pong-ppo rl-scaling sweep atari --game Pong --algorithm ppo --network small --num-envs 4 12 32 96 \
    --frames 1.5e6 --rates 2 --extensions 1 --best-seeds 1 --noise-every-updates 5 --out pong-ppo
  step breakout-ppo breakout-ppo rl-scaling sweep atari --game Breakout --algorithm ppo --network small \
    --num-envs 4 12 32 96 --frames 1e6 --rates 2 --extensions 1 --best-seeds 1 --noise-every-updates 5 \
    --goals 2 3 4 5 6 8 10 15 20 --out breakout-ppo

  # PPO's other two families; the first, a fixed count of minibatches, is minatar-ppo.
  step minatar-ppo-minibatch minatar-ppo-minibatch rl-scaling sweep rl --game minatar/breakout minatar/asterix \
    --algorithm ppo --scaling minibatch --num-envs 2 6 20 64 200 --rates 5 --extensions 1 --seeds 0 1 2 \
    --frames 1e6 --noise-every-updates 10 --out minatar-ppo-minibatch
  step minatar-ppo-ewma minatar-ppo-ewma rl-scaling sweep rl --game minatar/breakout minatar/asterix \
    --algorithm ppo --scaling ewma --num-envs 2 6 20 64 200 --rates 5 --extensions 1 --seeds 0 1 2 \
    --frames 1e6 --noise-every-updates 10 --out minatar-ppo-ewma

  # The published protocol: Nature network, the zoo's settings; PPO's are annealed over ten million frames.
  step published-breakout-a2c published/breakout-a2c rl-scaling train a2c --game Breakout --num-envs 16 --frames 2e6 \
    --out published/breakout-a2c
  step published-breakout-ppo published/breakout-ppo rl-scaling train ppo --game Breakout --num-envs 8 \
    --learning-rate-schedule linear --clip-range-schedule linear --frames 1e7 --stop-at 1e6 \
    --out published/breakout-ppo
  step published-pong-ppo published/pong-ppo rl-scaling train ppo --game Pong --num-envs 8 \
    --learning-rate-schedule linear --clip-range-schedule linear --frames 1e7 --stop-at 1.5e6 \
    --out published/pong-ppo
  step published-curves - rl-scaling export published --csv published-curves

  # A2C on four games, small network.
  step qbert-a2c qbert-a2c rl-scaling sweep atari --game Qbert --network small --no-rmsprop-epsilon-inside-root \
    --num-envs 8 24 72 200 --frames 6e5 --rates 2 --extensions 1 --best-seeds 1 --noise-every-updates 4 --stop-early \
    --out qbert-a2c
  step spaceinvaders-a2c spaceinvaders-a2c rl-scaling sweep atari --game SpaceInvaders --network small \
    --no-rmsprop-epsilon-inside-root --num-envs 8 24 72 200 --frames 6e5 --rates 2 --extensions 1 --best-seeds 1 \
    --noise-every-updates 4 --stop-early --out spaceinvaders-a2c
  step seaquest-a2c seaquest-a2c rl-scaling sweep atari --game Seaquest --network small \
    --no-rmsprop-epsilon-inside-root --num-envs 8 24 72 200 --frames 6e5 --rates 2 --extensions 1 --best-seeds 1 \
    --noise-every-updates 4 --stop-early --out seaquest-a2c
  step breakout-a2c breakout-a2c rl-scaling sweep atari --game Breakout --network small \
    --no-rmsprop-epsilon-inside-root --num-envs 8 24 72 200 --frames 2e6 --rates 2 --extensions 1 --best-seeds 1 \
    --goals 2 3 4 5 6 8 10 15 20 30 --noise-every-updates 4 --stop-early --out breakout-a2c
}

# What campaign() is read for: run, list or commands.
step() {
  local name=$1 store=$2
  shift 2
  ((stopped)) && return
  wanted "$name" || return
  case $mode in
    commands) echo "$*" ;;
    list) printf '%-24s %s\n' "$name" "$(state "$name" "$store")" ;;
    run) run "$name" "$@" ;;
  esac
}

wanted() {
  local prefix
  ((${#chosen[@]} == 0)) && return
  for prefix in "${chosen[@]}"; do
    [[ $1 == "$prefix"* ]] && return
  done
  return 1
}

# done, k of n trials, begun, failed (exit code) or waiting. Only the exit code of the command can say "done": a sweep
# adds rates and seeds as it goes.
state() {
  local last rows over all
  last=$(tail -n 1 "$folder/logs/$1.log" 2>/dev/null)
  rows=$([[ -d $folder/$2 ]] && rl-scaling status "$folder/$2" --json 2>/dev/null)
  over=$(grep -cE '"status": "(done|stopped|diverged)"' <<<"$rows")
  all=$(grep -c '"status": ' <<<"$rows")
  if [[ $last == "exit 0" ]]; then
    echo done
  elif ((all)); then
    echo "$over of $all trials$([[ $last == exit* ]] && echo ", ended with $last")"
  elif [[ $last == exit* ]]; then
    echo "ended with $last"
  else
    echo waiting
  fi
}

# Run one command in a process group of its own, so that Ctrl-C reaches it once, through this script.
run() {
  local name=$1 log=logs/$1.log code began=$SECONDS
  shift
  local -a at_once=()
  if [[ -n ${WORKERS:-} ]]; then
    case $2 in
      sweep) at_once=(--workers "$WORKERS") ;;
      train | measure) at_once=(--threads "$WORKERS") ;;
    esac
  fi
  echo "$(date +%FT%T) $name: $* (output in $folder/$log)"
  nice -n "${NICE:-19}" "$@" "${at_once[@]}" >>"$log" 2>&1 </dev/null &
  child=$!
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do # a signal has ended `wait`, and the command is saving its trials
    wait "$child"
    code=$?
  done
  child=
  echo "exit $code" >>"$log"
  echo "$(date +%FT%T) $name: exit $code after $((SECONDS - began)) s"
  ((code)) && failed+=("$name")
}

stop() {
  stopped=1
  [[ -n $child ]] && kill -TERM "$child" 2>/dev/null
}

main() {
  mode=run folder=campaign chosen=() failed=() stopped=0 child=
  while (($#)); do
    case $1 in
      --list | --commands) mode=${1#--} ;;
      --help | -h)
        sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit
        ;;
      -*)
        echo "$1 is no option: give --list, --commands, a folder or the beginnings of names" >&2
        exit 2
        ;;
      */*) folder=${1%/} ;;
      *) chosen+=("$1") ;;
    esac
    shift
  done
  local here name
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  command -v rl-scaling >/dev/null || PATH=$here/.venv/bin:$PATH # where `make` has put it
  for name in "${chosen[@]}"; do
    [[ $(mode=commands; chosen=("$name"); campaign) ]] || {
      echo "no step begins with $name: see --list" >&2
      exit 2
    }
  done
  if [[ $mode == run ]]; then
    mkdir -p "$folder/logs" || exit 1
    command -v rl-scaling >/dev/null || {
      echo "rl-scaling is not installed: run make test first, or activate its environment" >&2
      exit 1
    }
    cd "$folder" || exit 1
    set -m
    trap stop INT TERM HUP
  fi
  campaign
  ((stopped)) && echo "stopped: the same command resumes" && exit 1
  ((${#failed[@]} == 0)) || {
    echo "not finished: ${failed[*]} (see $folder/logs)" >&2
    exit 1
  }
}

main "$@"
