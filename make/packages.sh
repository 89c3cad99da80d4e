#!/usr/bin/env bash
# Prints the packages that have tests: those tested with the race detector, or those tested without it.
#
#   make/packages.sh race|plain
#
# Tested without are packages that link gVisor, because the race detector needs cgo and a sandbox only starts from a static
# binary, and those that start the real lull binary and measure time.
set -euo pipefail
cd "$(dirname "$0")/.."

case $1 in race) plain=0 ;; plain) plain=1 ;; *) exit 2 ;; esac
# One line per test binary: its name and everything it links.
go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | awk -v plain="$plain" '
  $1 !~ /\.test$/ { next }
  {
    is_plain = ($0 ~ / gvisor\.dev\//) || ($1 ~ /\/lull\/(e2e|bench)/)
    sub(/\.test$/, "", $1)
    if (is_plain == plain) print $1
  }'
