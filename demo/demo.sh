#!/usr/bin/env bash
# The whole story in a minute: a node of its own, a chat room deployed to it, two people talking, sleep, wake.
# It keeps everything in one temporary directory and removes it at the end. On a terminal it leaves the room open until
# Ctrl-C; DEMO_EXIT=1, or no terminal, ends it at once.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/lull-demo.XXXXXX")
node_pid=
program=$PWD/bin/lull

bold='' plain='' faint=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m' faint=$'\e[2m'; fi
step=0
title() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$plain"; }
shown() { printf '%s$ %s%s\n' "$faint" "$*" "$plain"; }

finish() {
  code=$?
  trap '' INT TERM HUP
  trap - EXIT
  if [ "$code" -ne 0 ] && [ "$code" -ne 130 ] && [ -s "$work/node.log" ]; then
    printf '\nThe demo did not work out. The end of what the node had to say:\n' >&2
    tail -n 30 "$work/node.log" | sed 's/^/  /' >&2
  fi
  if [ -n "$node_pid" ] && kill -TERM "$node_pid" 2>/dev/null; then
    echo "Ending the node and removing $work"
    wait "$node_pid" || true
  fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# free_port prints the port if it is free, else any other that is.
free_port() {
  node -e '
    const { createServer } = require("net")
    const [wanted] = process.argv.slice(1)
    const listen = (port) => createServer()
      .once("error", () => listen(0))
      .listen(port, "127.0.0.1", function () { console.log(this.address().port); this.close() })
    listen(Number(wanted))' "$1"
}

# field prints a field of the JSON list or object on stdin: of the first element if it is a list.
field() {
  node -e '
    const value = [].concat(JSON.parse(require("fs").readFileSync(0, "utf8")))[0]
    console.log(value === undefined ? "" : value[process.argv[1]])' "$1"
}

# wait_for runs a command again and again until it succeeds, for at most this many seconds.
wait_for() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@"; do
    if [ -n "$node_pid" ] && ! kill -0 "$node_pid" 2>/dev/null; then echo "demo: the node has ended" >&2; exit 1; fi
    if [ "$SECONDS" -ge "$deadline" ]; then echo "demo: after $seconds s still not: $what" >&2; exit 1; fi
    sleep 0.2
  done
}

# The node announces itself where only the demo looks: a plain "lull deploy" goes on to reach the user's own node.
lull() { XDG_CONFIG_HOME=$work/config "$program" "$@"; }
node_answers() { lull apps --json >/dev/null 2>&1; }
is_paused() { [ "$(lull ps chat --json | field state)" = paused ]; }
# The names under .localhost are this machine; not every resolver knows that.
get() { curl --silent --show-error --fail --max-time 30 --resolve "$host:$http_port:127.0.0.1" "$@"; }

http_port=$(free_port 8080)
api_port=$(free_port 7777)
unset LULL_API LULL_TOKEN

title "A node: one program, its own data directory"
shown "lull serve --data $work/data --http 127.0.0.1:$http_port --api 127.0.0.1:$api_port &"
set -m # a process group of its own: Ctrl-C reaches this script, which then ends the node in good order
XDG_CONFIG_HOME=$work/config "$program" serve --data "$work/data" --http "127.0.0.1:$http_port" --api "127.0.0.1:$api_port" >"$work/node.log" 2>&1 &
node_pid=$!
set +m
wait_for 30 "the node answers" node_answers
grep -v 'level=' "$work/node.log" || true

title "An app: a chat room, an ordinary Node server with a WebSocket"
shown "lull init chat"
(cd "$work" && lull init chat)

title "Deploy it: npm ci runs in a sandbox on the node"
shown "lull deploy chat"
url=$(cd "$work" && lull deploy chat)
host=${url#http://} host=${host%%[:/]*}
echo "$url"

title "It answers"
shown "curl $url"
get --output "$work/page.html" --dump-header - "$url" | grep -iE '^(HTTP|Lull-Environment|Server-Timing)'
grep -q '<title>Chat' "$work/page.html"

title "Two people talk"
go run ./demo/talk "$url"

title "Nobody says anything: after two seconds it falls asleep"
wait_for 60 "the environment is paused" is_paused
shown "lull ps chat"
lull ps chat
before=$(lull ps chat --json | field cpuSeconds)
sleep 5
after=$(lull ps chat --json | field cpuSeconds)
# What is left is the sandbox's own end of a garbage collection, not the app: some tenths of a millisecond, once.
node -e '
  const [before, after] = process.argv.slice(1).map(Number)
  console.log(`CPU used since its start: ${before.toFixed(4)} s; in five seconds of sleep: ${(after - before).toFixed(4)} s`)
  if (after - before > 0.01) { console.error("demo: a paused environment used CPU"); process.exit(1) }' "$before" "$after"

title "The next request wakes it; what was said is still there"
shown "curl ${url}messages"
get --dump-header "$work/head" --output "$work/messages" "${url}messages"
grep -iE '^(HTTP|Lull-Environment|Server-Timing)' "$work/head"
cat "$work/messages"
if ! grep -qi 'desc="\?resume' "$work/head"; then echo "demo: that was no resume" >&2; exit 1; fi
grep -q '"text"' "$work/messages"

printf '\n%sThe room: %s%s\n' "$bold" "$url" "$plain"
if [ -n "${DEMO_EXIT:-}" ] || ! [ -t 0 ] || ! [ -t 1 ]; then exit 0; fi
cat <<END
Open it in two windows. To look at it from another terminal:

  export LULL_API=http://127.0.0.1:$api_port LULL_TOKEN=$(cat "$work/data/token")
  $program ps
  $program logs chat -f

Ctrl-C ends the node and removes everything.
END
trap 'exit 0' INT TERM HUP
wait "$node_pid"
