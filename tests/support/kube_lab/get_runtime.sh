#!/usr/bin/env bash
# get_runtime.sh DIRECTORY: what runs containers on a node - containerd, runc, the CNI plugins, and the busybox that images are made
# of - from Debian bookworm's packages, unpacked and not installed: a machine's own container engine stays as it is. Takes seconds.
set -euo pipefail
out=$(realpath -m "$1")
[ -x "$out/usr/bin/containerd" ] && { echo "the container runtime is there: $out"; exit 0; }
. "$(dirname "$(realpath "$0")")/own_apt.sh"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
own_apt "$work" bookworm deb
cd "$work"
apt-get download -q containerd runc containernetworking-plugins busybox-static >>"$work/apt.log" 2>&1
for package in ./*.deb; do dpkg -x "$package" "$work/unpacked"; done
mkdir -p "$(dirname "$out")"
rm -rf "$out.new"; cp -r "$work/unpacked" "$out.new"; rm -rf "$out"; mv "$out.new" "$out"
echo "container runtime ready after ${SECONDS}s: $out"
