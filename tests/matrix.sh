#!/usr/bin/env bash
# A representative part of the tests on every Python from 3.11 on that is at hand, then on the oldest with the oldest allowed
# dependencies. MINORS="12 13": these Pythons alone; TESTS="tests/…": these tests.
set -euo pipefail
cd "$(dirname "$0")/.."
default="tests/oci tests/formats tests/store/test_store.py tests/store/test_writer.py tests/cli/test_cli.py tests/sources/http
  tests/sources/test_contract.py tests/pull/test_pull.py tests/pull/test_exact.py tests/serve/test_app.py tests/test_library.py
  tests/test_floors.py"
read -rd '' -a quick <<<"${TESTS:-$default}" || true

pythons=()
for minor in ${MINORS:-11 12 13 14}; do
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
# Types are those of the newest msgspec: in 0.18 a field that may be unset is never anything else to mypy.
.cache/matrix/oldest/bin/python -m pytest -q --numprocesses="${JOBS:-2}" "${quick[@]}" \
  --deselect tests/test_library.py::test_a_program_outside_the_tree_type_checks_against_the_wheel
