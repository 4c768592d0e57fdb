#!/usr/bin/env bash
# node.sh NAME ADDRESS FOLDER: one node of a lab - containerd and a kubelet - in the namespaces it was started in (see `nodes.py`).
# It has a /run, /var/log and /var/lib of its own, which go with it. Ends, and everything with it, when the kubelet does.
set -euo pipefail
name=$1 address=$2 folder=$3
for path in /run /var/log /var/lib; do mount -t tmpfs "$name" "$path"; done
containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
ctr --namespace k8s.io images import "$folder/image.tar" >/dev/null
kubelet --config="$folder/kubelet.json" --kubeconfig="$folder/kubelet.conf" --hostname-override="$name" --node-ip="$address" \
    --cert-dir="$folder" --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock
