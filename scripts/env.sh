# Sourced by the scripts beside it: makes the environment in .venv and compiles the native engine on
# first use, and again when what they are made from has changed. Afterwards $root is the repository,
# $python its interpreter and $native the compiled engine, which is not there if it cannot be.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=$root/.venv/bin/python

# Whatever the caller prefers: tests and benchmarks start thousands of processes, and each would
# compile again what an installed package has compiled. The tree is left clean all the same.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$root/.venv-pycache

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
    prepare_venv
    prepare_native
}

prepare_venv() {
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

# Fails, and says what is missing, only where the native engine is demanded.
prepare_native() {
    local stamp said made_from=$root/.venv/native-made-from
    native=$root/shmstore/_native$(config_variable EXT_SUFFIX)
    stamp=$(native_stamp)
    [ ! -e "$native" ] || [ "$(cat "$made_from" 2>/dev/null)" != "$stamp" ] || return 0

    echo "compiling $native" >&2
    rm -rf "$native" "$root/.venv/build" # or the old one would stay if a new one cannot be had
    said=$(compile_native 2>&1) || true
    if [ -e "$native" ]; then
        native_stamp >"$made_from"
        return
    fi
    if [ -z "${CI:-}" ] && [ "${SHMSTORE_ENGINE:-}" != native ]; then
        echo "no native engine, the pure one alone is used: $(what_is_missing);" \
            "SHMSTORE_ENGINE=native $0 says more" >&2
        return
    fi
    echo "$said" >&2
    echo "the native engine is demanded and cannot be compiled: $(what_is_missing)" >&2
    return 1
}

# In CI a warning is an error; elsewhere another compiler's opinion shall not stop anybody.
compile_native() (
    cd "$root"
    if [ -n "${CI:-}" ]; then
        # What the variable says takes the place of what Python was compiled with.
        CFLAGS="$(config_variable CFLAGS) -Wall -Wextra -Werror"
        export CFLAGS
    fi
    "$python" scripts/gen_layout_h.py --check &&
        "$python" -W ignore -c 'import setuptools; setuptools.setup()' --quiet \
            build_ext --inplace --force --build-temp .venv/build --build-lib .venv/build
)

config_variable() {
    "$python" -c 'import sys, sysconfig; print(sysconfig.get_config_var(sys.argv[1]))' "$1"
}

# All that the compiled engine depends on, and itself: somebody may have compiled another one.
native_stamp() {
    echo "${CI:+strict} ${CC:-} ${CFLAGS:-}"
    [ ! -e "$native" ] || cksum <"$native"
    cat "$root"/shmstore/native/* "$root/shmstore/layout.py" "$root/pyproject.toml" | cksum
}

what_is_missing() {
    local compiler headers
    compiler=${CC:-$(config_variable CC)}
    headers=$(config_variable INCLUDEPY)
    if ! command -v "${compiler%% *}" >/dev/null; then
        echo "there is no C compiler '${compiler%% *}': install one, or name one with CC"
    elif [ ! -e "$headers/Python.h" ]; then
        echo "$headers/Python.h is missing: install the headers of this Python"
    else
        echo "its build fails"
    fi
}
