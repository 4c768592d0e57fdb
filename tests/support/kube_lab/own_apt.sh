# own_apt DIRECTORY SUITE TYPES...: sourced; from here on apt-get works with lists of its own in DIRECTORY, for one suite of Debian.
# The mirror is the one this machine uses; its lists, its installed packages and its settings stay as they are.
own_apt() {
    local directory=$1 suite=$2 mirror; shift 2
    mkdir -p "$directory"/apt/{lists/partial,cache/archives/partial,preferences,parts}
    : >"$directory/apt/status"
    mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
    [ -n "$mirror" ] || mirror=$(awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) {print $i; exit}}' /etc/apt/sources.list 2>/dev/null || true)
    printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
        "$*" "${mirror:-http://deb.debian.org/debian}" "$suite" >"$directory/apt/debian.sources"
    cat >"$directory/apt/apt.conf" <<SETTINGS
Dir::Etc::sourcelist "$directory/apt/debian.sources";
Dir::Etc::sourceparts "$directory/apt/parts";
Dir::Etc::preferencesparts "$directory/apt/preferences";
Dir::State::Lists "$directory/apt/lists";
Dir::State::status "$directory/apt/status";
Dir::Cache "$directory/apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
SETTINGS
    export APT_CONFIG=$directory/apt/apt.conf
    apt-get update -q >"$directory/apt.log" 2>&1
}
