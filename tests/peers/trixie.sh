#!/usr/bin/env bash
# Debian trixie's skopeo and podman on an older Debian, with nothing installed:
#   trixie.sh DIR            unpack them and their libraries into DIR; once that is done, a second run is instant
#   DIR/run skopeo copy …    run one of them in a mount namespace of its own, where DIR/usr lies over /usr;
#                            all else (temporary folders, the network, /proc) is what it was
# The packages come from the mirror this machine uses anyway, checked against Debian's keys.
set -euo pipefail
suite=trixie
packages="skopeo podman netavark ca-certificates docker.io docker-cli containerd runc"

mkdir -p "$1"
dir=$(cd "$1" && pwd)
made="$suite: $packages"
[ "$(cat "$dir/.made" 2>/dev/null)" = "$made" ] && exit 0

rm -rf "$dir"/{.made,apt,etc,usr,run}
mkdir -p "$dir"/apt/{lists/partial,archives/partial,log}
: >"$dir/apt/status" # nothing is installed there, so apt brings every library
# shellcheck disable=SC2016
mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' | sort -u)
mirror=$(grep -v security <<<"$mirrors" | head -n 1) || { echo "apt knows no Debian mirror; run apt-get update" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/apt/sources.list"
cat >"$dir/apt/conf" <<EOF
Dir::Etc { sourcelist "$dir/apt/sources.list"; sourceparts "/dev/null"; preferencesparts "/dev/null"; };
Dir::State "$dir/apt"; Dir::State::status "$dir/apt/status"; Dir::Cache "$dir/apt"; Dir::Log "$dir/apt/log";
APT::Sandbox::User "$(id -un)"; APT::Install-Recommends "false";
EOF
export APT_CONFIG=$dir/apt/conf
apt-get -qq update
# shellcheck disable=SC2086
apt-get -qq --download-only --yes install $packages
for deb in "$dir"/apt/archives/*.deb; do dpkg-deb --extract "$deb" "$dir"; done
find "$dir" -mindepth 1 -maxdepth 1 ! -name usr ! -name etc -exec rm -rf {} + # with what apt needed
rm -rf "$dir"/usr/share/{doc,man,locale,info,bash-completion,fish,zsh}

cat >"$dir/run" <<'EOF'
#!/bin/sh
# Run "$@" with this folder's usr in place of /usr.
here=$(dirname "$(readlink -f "$0")")
[ "$(id -u)" = 0 ] || user="--user --map-root-user"
export here
# shellcheck disable=SC2086,SC2016
exec unshare $user --mount sh -c '
  [ ! -d /etc/containers ] || mount --bind "$here/etc/containers" /etc/containers
  mount --bind "$here/usr" /usr
  exec "$@"' sh "$@"
EOF
chmod +x "$dir/run"
"$dir/run" skopeo --version >/dev/null
"$dir/run" podman --version >/dev/null
echo "$made" >"$dir/.made"
