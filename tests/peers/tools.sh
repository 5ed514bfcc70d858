#!/usr/bin/env bash
# Registry clients, registries and the OCI conformance suite, built by Go:
#   tools.sh DIR            build them into DIR; once that is done, a second run is instant
# Their modules come from the module proxy that this machine's Go uses anyway, checked against its sums.
set -euo pipefail
made="crane v0.20.6, regctl v0.9.2, oras v1.3.0, registry v3.0.0, conformance 20260831, ocimem 20251212"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ "$(cat "$dir/.made" 2>/dev/null)" = "$made" ] && exit 0
command -v go >/dev/null || { echo "tools.sh needs Go 1.21 or newer" >&2; exit 1; }

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export GOBIN=$dir GOPATH=$work/path GOFLAGS=-mod=mod
cd "$work"
go install github.com/google/go-containerregistry/cmd/crane@v0.20.6
go install github.com/regclient/regclient/cmd/regctl@v0.9.2
go install oras.land/oras/cmd/oras@v1.3.0
go install github.com/distribution/distribution/v3/cmd/registry@v3.0.0
go install github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
# cue-labs' registry in memory is a library: this makes a server of it
mkdir ocimem
cd ocimem
cat >main.go <<'END'
package main

import (
	"net/http"
	"os"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

func main() {
	panic(http.ListenAndServe(os.Args[1], ociserver.New(ocimem.New(), nil)))
}
END
go mod init ocimem
go get cuelabs.dev/go/oci/ociregistry@v0.0.0-20251212221603-3adeb8663819
go install
echo "$made" >"$dir/.made"
