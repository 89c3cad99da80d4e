#!/usr/bin/env bash
# Runs every test once. The last lines printed are those of go test.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests that run the real program take the one that make has built.
export LULL_BINARY=$PWD/bin/lull
# Package paths hold no spaces: the lists are split on purpose below.
race=$(make/packages.sh race)
plain=$(make/packages.sh plain)
failed=0
# shellcheck disable=SC2086
if [ -n "$race" ]; then
  go test -race -count=1 -timeout 10m $race || failed=1
fi
# shellcheck disable=SC2086
if [ -n "$plain" ]; then
  # Built with the flags of "make build", else all of gVisor is compiled once more. Compiled first, so that no compiler
  # runs beside a test that measures time; then one package after the other.
  export CGO_ENABLED=0
  go test -trimpath -exec true $plain >/dev/null || true
  go test -trimpath -p 1 -count=1 -timeout 30m $plain || failed=1
fi
exit "$failed"
