# Sourced by the scripts beside it: makes the environment in .venv on first use, and again when
# what it is made from has changed. Afterwards $root is the repository and $python its interpreter.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=$root/.venv/bin/python

# The first of $PYTHON, python3 and the versions by name that is new enough.
find_interpreter() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.{14,13,12,11,10}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        if [ -n "${PYTHON:-}" ]; then
            echo "PYTHON=$PYTHON is not a Python of version 3.10 or newer" >&2
            return 1
        fi
    done
    echo "no Python of version 3.10 or newer found; name one: PYTHON=/path/to/python3 $0" >&2
    return 1
}

prepare_environment() {
    local interpreter base stamp made_from=$root/.venv/made-from
    interpreter=$(find_interpreter)
    base="$root $("$interpreter" -c 'import sys; print(sys.base_prefix, sys.version)')"
    stamp="$base $(cat "$root/pyproject.toml" "$root/setup.cfg" | cksum)"
    [ "$(cat "$made_from" 2>/dev/null)" != "$stamp" ] || return 0

    echo "setting up $root/.venv (once)" >&2
    case "$(cat "$made_from" 2>/dev/null)" in
    "$base "*) rm -f "$made_from" ;; # same interpreter: the packages at most are other ones
    *) rm -rf "$root/.venv" ;;
    esac
    [ -x "$python" ] || "$interpreter" -m venv "$root/.venv"
    "$python" -m pip install --quiet --quiet --disable-pip-version-check \
        --editable "$root[dev]"
    echo "$stamp" >"$made_from"
}
