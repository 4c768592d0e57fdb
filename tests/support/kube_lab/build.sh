#!/usr/bin/env bash
# Builds the two API servers that tests use, and what nodes with real pods run, once a machine, into ~/.cache/kube-lab (or
# $KUBE_LAB), and says how long it took.
# Where one cannot be built (no root for dpkg's tools, no mirror), that is said, and the tests that need it are skipped aloud.
here=$(dirname "$(realpath "$0")")
cache=${KUBE_LAB:-$HOME/.cache/kube-lab}
if ! command -v dpkg-source >/dev/null || ! command -v apt-get >/dev/null; then
    echo "NOT BUILT: Kubernetes API servers need Debian's dpkg-dev and apt - tests that need them will be skipped"
    exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9  # Another one that builds the same is waited for.
bash "$here/get_kubectl.sh" "$cache/kubectl" || echo "NOT THERE: kubectl - tests that need it will be skipped"
bash "$here/get_runtime.sh" "$cache/runtime" || echo "NOT THERE: a container runtime - tests that need it will be skipped"
bash "$here/build_server.sh" "$cache/kubernetes-1.20.2" || echo "NOT BUILT: kubernetes 1.20.2 - tests that need it will be skipped"
bash "$here/build_crdserver.sh" "$cache/crdserver" || echo "NOT BUILT: the CRD server - tests that need it will be skipped"
echo "Kubernetes API servers ready after ${SECONDS}s"
