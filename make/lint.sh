#!/usr/bin/env bash
# Looks at the code without running it.
#
#   make/lint.sh STATICCHECK GOVULNCHECK      each as package@version
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
  printf 'not formatted (gofmt -w):\n%s\n' "$unformatted" >&2
  exit 1
fi
go vet ./...
go run "$1" ./...
if curl --silent --fail --max-time 10 --output /dev/null https://vuln.go.dev/index/db.json; then
  go run "$2" ./...
else
  echo "govulncheck was left out: vuln.go.dev cannot be reached"
fi
