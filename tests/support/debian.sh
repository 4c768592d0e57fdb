#!/bin/sh
# Installs Debian packages that tests need, where this user may; says aloud what is missing otherwise.
# The tests themselves skip, with a count, when a tool is not there; CI fails on such a skip.
missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Debian packages:$missing"
    # A service that a package would start is not wanted: tests start their own, on free ports.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "NOT INSTALLED:$missing - tests that need them will be skipped (install them, or run as root)"
exit 0
