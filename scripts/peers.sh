#!/bin/sh
# Makes .venv-peers: interpose and the libraries that it is compared with, which pin other versions than it does.
# Called by `make bench`, after `make setup`; made anew where pyproject.toml has changed since.
set -eu
cd "$(dirname "$0")/.."

if [ -e .venv-peers/ready ] && [ ! pyproject.toml -nt .venv-peers/ready ]; then
    exit 0
fi
echo "peers: making .venv-peers with the libraries to compare with; this takes minutes" >&2
rm -rf .venv-peers
.venv/bin/python -m venv .venv-peers
pip=".venv-peers/bin/python -m pip install --quiet --no-input --disable-pip-version-check"
$pip "$(grep '^torch==' requirements.lock)"
$pip --editable ".[peers]"
touch .venv-peers/ready
