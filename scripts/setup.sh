#!/bin/sh
# Finds a Python that can make the environment, and hands over to scripts/environment.py.
# Name one yourself with PYTHON=/path/to/python; it needs nothing but its standard library.
set -u
cd "$(dirname "$0")/.." || exit 1

too_old=""
no_venv=""
for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3 python; do
    # A name on the PATH is not yet a Python: version managers leave stand-ins that only print an error.
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        too_old="${too_old:-, only $candidate, which is Python $version}"
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        no_venv="${no_venv:-$candidate}"
        no_venv_version="${no_venv_version:-$version}"
    else
        exec "$candidate" scripts/environment.py
    fi
done

if [ -n "$no_venv" ]; then
    echo "setup: $no_venv is Python $no_venv_version but lacks the venv module; install it (on Debian and Ubuntu: apt-get install python$no_venv_version-venv)." >&2
else
    echo "setup: Python 3.11 or newer was not found$too_old; install one, or name it with: make PYTHON=/path/to/python" >&2
fi
exit 1
