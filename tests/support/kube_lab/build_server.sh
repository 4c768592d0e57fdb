#!/usr/bin/env bash
# build_server.sh DIRECTORY: Kubernetes 1.20.2 (API server, controllers, scheduler; kubelet and kube-proxy for nodes with real pods)
# from Debian bookworm's source package.
#
# Everything comes from the Debian mirror that this machine already uses, through an apt with lists of its own: nothing of the machine's
# changes, and no Go need be installed. Takes 4 to 6 minutes and 2 GB on two cores; a DIRECTORY that has the binaries is left as it is.
# Debian's package is as old as its Go was; three repairs, each needed with a Go newer than the code:
#   1 the generated OpenAPI of the server is not in the source package: made with the generator that is;
#   2 the vendored reflect2 1.0.1 panics on maps since Go 1.18: Debian's own 1.0.2 in its place;
#   3 a type check compares reflect.Values, which since Go 1.19 makes every empty string a null (CRDs with `default: ""` are refused).
set -euo pipefail
out=$(realpath -m "$1")
commands=()
for command in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do [ -x "$out/$command" ] || commands+=("$command"); done
[ ${#commands[@]} = 0 ] && { echo "kubernetes is built: $out"; exit 0; }
. "$(dirname "$(realpath "$0")")/own_apt.sh"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
own_apt "$work" bookworm deb deb-src

cd "$work"
apt-get source -q --download-only kubernetes >>apt.log 2>&1
apt-get download -q golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev >>apt.log 2>&1
for package in golang-1.19-*.deb; do dpkg -x "$package" go; done
dpkg -x golang-github-modern-go-reflect2-dev*.deb reflect2
export GOPATH=$work/path GOROOT=$work/go/usr/lib/go-1.19 GOCACHE=$work/cache GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOTOOLCHAIN=local
mkdir -p "$GOPATH/src/k8s.io" "$out"
dpkg-source --no-check -x kubernetes_*.dsc "$GOPATH/src/k8s.io/kubernetes" >>apt.log 2>&1
cd "$GOPATH/src/k8s.io/kubernetes"
rm -rf vendor/github.com/modern-go/reflect2
cp -rL "$work/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/
rm -f vendor/github.com/modern-go/reflect2/*_test.go
sed -i 's/if data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data)) {/if data == nil {/' \
    vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go
echo "sources ready after ${SECONDS}s"

"$GOROOT/bin/go" build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' cmd pkg plugin staging/src/k8s.io | grep -v -e '_test.go$' -e /code-generator/ -e /sample-apiserver/ |
    xargs -n1 dirname | sed -e 's#^staging/src/#vendor/#' -e 's#^#k8s.io/kubernetes/#' | LC_ALL=C sort -u | paste -sd,)
PATH=$GOROOT/bin:$PATH "$work/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
echo "OpenAPI ready after ${SECONDS}s"

named=""
for package in client-go/pkg/version component-base/version; do
    prefix=k8s.io/kubernetes/vendor/k8s.io/$package
    named="$named -X $prefix.gitVersion=v1.20.2 -X $prefix.gitMajor=1 -X $prefix.gitMinor=20 -X $prefix.gitTreeState=clean"
done
mkdir "$work/built"
"$GOROOT/bin/go" build -ldflags "-s -w $named" -o "$work/built/" "${commands[@]/#/./cmd/}"
for command in "${commands[@]}"; do install -m 755 "$work/built/$command" "$out/.$command"; mv "$out/.$command" "$out/$command"; done
echo "kubernetes 1.20.2 built in ${SECONDS}s: $out"
