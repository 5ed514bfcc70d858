#!/usr/bin/env bash
# The quick tests on every Python from 3.11 on that is at hand, then on the oldest one with the oldest allowed dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=(tests/oci tests/formats tests/store tests/download tests/cli tests/layers tests/export tests/pull tests/test_floors.py)

pythons=()
for minor in 11 12 13 14; do
  for found in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
    if command -v "$found" >/dev/null && "$found" -c "import sys; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null; then
      pythons+=("$found")
      break
    fi
  done
done

for python in "${pythons[@]}"; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "== Python $version"
  "$python" -m venv ".cache/matrix/$version"
  ".cache/matrix/$version/bin/pip" install --quiet --disable-pip-version-check --editable '.[dev]'
  ".cache/matrix/$version/bin/python" -m pytest -q --numprocesses="${JOBS:-2}" "${quick[@]}"
done

echo "== Python ${pythons[0]}, oldest dependencies"
"${pythons[0]}" -m venv .cache/matrix/oldest
# The floors of pyproject.toml, as exact versions.
"${pythons[0]}" - >.cache/matrix/oldest.txt <<'PY'
import tomllib
for line in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    print(line.replace(">=", "=="))
PY
.cache/matrix/oldest/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint .cache/matrix/oldest.txt
.cache/matrix/oldest/bin/python -m pytest -q --numprocesses="${JOBS:-2}" "${quick[@]}"
