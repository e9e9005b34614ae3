#!/bin/sh
# Runs the model in this folder, offline, wherever the folder was copied to:
#     sh run.sh selftest | info | predict --input FILE | serve [--config FILE]
# It installs nothing. The first run unpacks the wheels beside this file, or, where that cannot be written, in the
# user's cache: wheels are plain files, so neither pip nor venv (which Debian ships apart) is needed.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)

refuse() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 3
}

recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

prepare() {
    PYTHONPATH=$here "$1" -P -m edgeml_runtime prepare "$here"
}

# The runtime checks every other file, but it cannot vouch for itself.
if command -v sha256sum >/dev/null 2>&1; then
    changed=$(cd "$here" && grep -E '  (edgeml_runtime/|run\.sh$)' SHA256SUMS | sha256sum -c 2>/dev/null | grep -v ': OK$') || true
    [ -z "$changed" ] || refuse "$(printf %s "$changed" | head -n 1 | cut -d: -f1) is not the file that was packed" 'copy the bundle again'
fi

export EDGEML_TYPED="$0" # what its help is about
newest=
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    recent "$python" || continue
    newest=${newest:-$python}
    site=$(prepare "$python" 2>/dev/null) || continue
    export PYTHONPATH="$here:$site${PYTHONPATH:+:$PYTHONPATH}"
    case ${1:--h} in
        -*) exec "$python" -P -m edgeml_runtime "$@" ;;
    esac
    command=$1
    shift
    exec "$python" -P -m edgeml_runtime "$command" "$here" "$@"
done

[ -n "$newest" ] || refuse "this bundle needs Python 3.11 or newer, and python3 is $(python3 -V 2>&1 || true)" 'install Python 3.11 or newer'
prepare "$newest" >/dev/null # says why not
exit 3
