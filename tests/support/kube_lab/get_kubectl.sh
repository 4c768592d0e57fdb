#!/usr/bin/env bash
# get_kubectl.sh FILE: kubectl from Debian trixie's package (1.32, with kustomize 5.5), unpacked and not installed: Debian 12's own
# is 1.20, whose kustomize knows no components, and another package's /usr/bin/kubectl stays as it is. Takes seconds.
set -euo pipefail
file=$(realpath -m "$1")
[ -x "$file" ] && { echo "kubectl is there: $file"; exit 0; }
. "$(dirname "$(realpath "$0")")/own_apt.sh"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
own_apt "$work" trixie deb
cd "$work"
apt-get download -q kubectl >>"$work/apt.log" 2>&1
dpkg -x ./kubectl_*.deb "$work/unpacked"
mkdir -p "$(dirname "$file")"
install -m 755 "$work/unpacked/usr/bin/kubectl" "$file.new"; mv "$file.new" "$file"
echo "kubectl ready after ${SECONDS}s: $file"
