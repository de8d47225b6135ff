#!/bin/sh
# Installs the system packages that some tests use, from Debian. Without them those tests are skipped by name.
set -u

missing=""
command -v chromium >/dev/null 2>&1 || missing="chromium"
fonts=$(find /usr/share/fonts "${HOME:-/nonexistent}/.fonts" -iname 'DejaVuSans.ttf' 2>/dev/null | head -n 1)
[ -n "$fonts" ] || missing="${missing:+$missing }fonts-dejavu"

if [ -z "$missing" ]; then
    echo "system: everything is there"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "system: $missing cannot be installed from here, because there is no apt-get; install it with this system's package manager." >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "system: $missing cannot be installed without root; run: sudo apt-get install $missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
wait_for_others="-o DPkg::Lock::Timeout=300"
if apt-get update -qq && apt-get install -qq -y $wait_for_others --no-install-recommends $missing >/dev/null; then
    echo "system: installed $missing"
else
    echo "system: apt-get could not install $missing; its own message is above." >&2
    exit 1
fi
