#!/usr/bin/env bash
# Sees to it that the image debian:bookworm-slim exists: all other images of this repository start from it.
#
# Invariants
#  - An image of that name is used as it is. Else it is pulled; where no registry answers, built by debootstrap from
#    Debian's own packages and imported under the same name, without docs, manuals and locales, as the official one.
#  - An image built here that is cut short leaves no image: the import is the last step.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
SECURITY=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

if have_image "$BASE_IMAGE"; then exit 0; fi
echo "pulling $BASE_IMAGE"
if pull_image "$BASE_IMAGE"; then exit 0; fi

echo "no registry gives $BASE_IMAGE: building it with debootstrap"
{ [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } ||
  fail "$BASE_IMAGE can neither be pulled nor built: debootstrap needs root on Debian or Ubuntu." \
    "Make a registry reachable, or bring the image with: docker load. What the registry said: $(tail -n 1 "$VAR/pull.log")"
command -v debootstrap >/dev/null || apt_install debootstrap debian-archive-keyring

root=$(mktemp -d)
log="$VAR/debootstrap.log"
trap 'rm -rf --one-file-system -- "$root"' EXIT

debootstrap --variant=minbase bookworm "$root" "$MIRROR" </dev/null >"$log" 2>&1 ||
  fail "debootstrap could not build $BASE_IMAGE from $MIRROR. Its last words:" "$(tail -n 5 "$log")" \
    "Make the mirror reachable, or name another in DEBIAN_MIRROR. All of its output is in $log."

cat >"$root/etc/apt/sources.list" <<LIST
deb $MIRROR bookworm main
deb $MIRROR bookworm-updates main
deb $SECURITY bookworm-security main
LIST
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'CONF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
CONF
cat >"$root/etc/apt/apt.conf.d/slim" <<'CONF'
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::AutoRemove::SuggestsImportant "false";
CONF
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service starts in an image
chmod +x "$root/usr/sbin/policy-rc.d"
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -mindepth 1 \( -type l -o -type d -empty \) -delete
rm -rf -- "$root"/usr/share/{man,info,locale,lintian}/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
  "$root"/var/log/{apt,bootstrap.log,dpkg.log,alternatives.log} "$root"/etc/{hostname,resolv.conf}
mkdir -p "$root"/usr/share/man/man{1,5,7,8} # packages' alternatives point in there

tar -c --numeric-owner -C "$root" --exclude './dev/*' --exclude './proc/*' --exclude './sys/*' . |
  docker import --change 'CMD ["bash"]' - "$BASE_IMAGE" >/dev/null
