#!/usr/bin/env bash
# build_crdserver.sh FILE: the API server of custom resources alone, as present-day clusters have it, from Debian sid's packages.
#
# It is k8s.io/apiextensions-apiserver: it keeps custom resources, validates them strictly (schema, CEL), and lets them be watched; it
# knows neither pods nor namespaces. Its version is the one sid has on the day (0.36.4 in November 2026); `FILE.version` names it.
# Takes 3 to 4 minutes on two cores; a FILE that is there is left as it is. Nothing of the machine's packages changes.
set -euo pipefail
file=$(realpath -m "$1")
[ -x "$file" ] && { echo "the CRD server is built: $file"; exit 0; }
. "$(dirname "$(realpath "$0")")/own_apt.sh"
work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
own_apt "$work" sid deb

mkdir "$work/packages"; cd "$work/packages"
libraries=$(apt-get install -s golang-k8s-apiextensions-apiserver-dev 2>>"$work/apt.log" | awk '/^Inst golang-/ {print $2}')
compiler=$(apt-cache depends golang-go | awk '/Depends: golang-[0-9.]+-go/ {print $2}' | head -1)
# shellcheck disable=SC2086 - a list of names
apt-get download -q $libraries "$compiler" "${compiler%-go}-src" >>"$work/apt.log" 2>&1
for package in ./*.deb; do
    case $package in ./golang-[0-9]*) dpkg -x "$package" "$work/go";; *) dpkg -x "$package" "$work/libraries";; esac
done
version=$(apt-cache policy golang-k8s-apiextensions-apiserver-dev | awk '/Candidate:/ {print $2}')
echo "sources ready after ${SECONDS}s: apiextensions-apiserver $version, $compiler"

GOROOT=$(ls -d "$work"/go/usr/lib/go-*); export GOROOT GOPATH=$work/libraries/usr/share/gocode GOCACHE=$work/cache
export GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=''
"$GOROOT/bin/go" build -ldflags '-s -w' -o "$work/crdserver" k8s.io/apiextensions-apiserver
mkdir -p "$(dirname "$file")"
echo "$version" >"$file.version"
install -m 755 "$work/crdserver" "$file.new"; mv "$file.new" "$file"
echo "CRD server $version built in ${SECONDS}s: $file"
