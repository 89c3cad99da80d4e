#!/usr/bin/env bash
# Installs what the demo, the tests or the benchmarks need and this machine lacks, and says so.
#
#   make/deps.sh demo|test|bench
#
# Debian packages, by apt-get, as root or through sudo. Anywhere else it says what is missing and goes on: what cannot
# work without it will say so itself.
set -euo pipefail

missing=()
# need PACKAGE COMMAND...: the package is wanted unless the command succeeds.
need() {
  local package=$1
  shift
  if ! "$@" >/dev/null 2>&1; then missing+=("$package"); fi
}

for_demo() {
  need nodejs node --version
  need npm npm --version
  need curl curl --version
}

# Apps see the /usr of this machine, so it is Debian's Python that needs the libraries, whatever else is in PATH.
for_test() {
  for_demo
  need gcc gcc --version                 # go test -race
  need libc6-dev test -e /usr/include/stdlib.h
  need git git --version
  need iproute2 ip -V                    # to count what is left over
  need nftables nft --version
  need python3 test -x /usr/bin/python3
  need python3-websockets /usr/bin/python3 -c 'import websockets'
  need python3-flask /usr/bin/python3 -c 'import flask'
  need python3-fastapi /usr/bin/python3 -c 'import fastapi'
  need python3-uvicorn /usr/bin/python3 -c 'import uvicorn'
  need busybox-static test -x /usr/bin/busybox # the base image of tests
  need python3-aiohttp /usr/bin/python3 -c 'import aiohttp'
}

for_bench() {
  for_demo
  need caddy caddy version
}

if ! command -v go >/dev/null; then
  echo "Go is missing: install the version that go.mod names, from https://go.dev/dl/" >&2
  exit 1
fi

"for_$1"
if [ "${#missing[@]}" -eq 0 ]; then exit 0; fi

run=()
if [ "$(id -u)" -ne 0 ]; then run=(sudo); fi
if ! command -v apt-get >/dev/null || { [ "${#run[@]}" -gt 0 ] && ! sudo -n true 2>/dev/null && ! [ -t 0 ]; }; then
  echo "Missing here, and to be installed by hand (names of Debian packages): ${missing[*]}" >&2
  exit 0
fi
echo "Installing with apt-get: ${missing[*]}"
install() { "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
# A fresh machine has no package lists, or old ones.
if ! install 2>/dev/null; then
  "${run[@]}" apt-get update -qq || true
  install || echo "apt-get could not install all of: ${missing[*]}" >&2
fi
# The benchmarks start a Caddy of their own; its package also starts one as a service, on port 80.
if [[ " ${missing[*]} " == *" caddy "* ]]; then
  "${run[@]}" systemctl disable --now caddy >/dev/null 2>&1 || true
fi
