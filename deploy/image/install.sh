#!/bin/sh
# Install what some extras of pyproject.toml need into an environment: install.sh ENVIRONMENT EXTRA,EXTRA
#
# Without what nothing reads at run time: tests, headers, the sources of what is compiled. With bytecode, since an image's
# files cannot be written to and each start would compile all of it again; it is never compared with its source, whose
# time differs from build to build.
set -eu
environment=$1 extras=$2

python - "$extras" >/tmp/requirements.txt <<'PY'
import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
chosen = [project["optional-dependencies"][extra] for extra in sys.argv[1].split(",")]
print(*project["dependencies"], *(line for lines in chosen for line in lines), sep="\n")
PY

pip --python "$environment/bin/python" install --no-compile --find-links /wheels \
  --constraint constraints.txt --requirement /tmp/requirements.txt
find "$environment/lib" \
  \( -type d \( -name tests -o -name test \) -o -type f -name '*.py[ix]' -o -type f -name '*.[ach]' \
  -o -type f -name '*.pxd' -o -type f -name '*.[ch]pp' -o -type f -name '*.cuh' \) -prune -exec rm -r {} +
python -m compileall -q -j 0 -x /testing/_internal/ --invalidation-mode unchecked-hash "$environment/lib"
rm /tmp/requirements.txt
