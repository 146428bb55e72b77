# Read by the scripts beside it (POSIX sh): the virtual environment in .venv.
#
# A machine needs Python 3.11+ and git, nothing else. Setting up is quiet unless it fails, and is
# skipped when nothing has changed.
#
# root: the top of the repository, set by the script that reads this.
# PYTHON: an interpreter to use instead of the first that is found; each of its versions has an
# environment of its own, such as .venv-3.13.
# shellcheck shell=sh disable=SC2154

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

die() {
    echo "Error: $*" >&2
    exit 1
}

venv=$root/.venv
if [ -n "${PYTHON-}" ]; then
    venv=$venv-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
        die "PYTHON=$PYTHON cannot be run"
fi

# Run a command, and show what it printed only when it fails.
quietly() {
    if output=$("$@" 2>&1 </dev/null); then return 0; fi
    printf '%s\n' "$output" >&2
    die "this failed: $*"
}

on_debian_as_root() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    echo "Installing $* with apt-get ..." >&2
    quietly env DEBIAN_FRONTEND=noninteractive apt-get update
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# Name the first Python that is new enough, or PYTHON. It is run and not only looked for: a pyenv
# shim exists for versions that cannot be run.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    # A .venv whose Python has gone, or that was cut off while it was made, is made again.
    if "$venv/bin/python" -c 'import pip' 2>/dev/null; then return; fi
    python=$(find_python) || die "Python 3.11 or later is needed, and ${PYTHON:-none} was found"
    # Debian splits ensurepip off into a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        case ${python##*/} in python) package=python3-venv ;; *) package=${python##*/}-venv ;; esac
        on_debian_as_root || die "$python has no venv module: install it (Debian: $package)"
        apt_install "$package"
    fi
    echo "Making ${venv##*/} ..." >&2
    quietly "$python" -m venv --clear "$venv"
}

# Print a sum of everything that goes into the package. The path of the repository is part of it,
# since the installed scripts name their interpreter by it.
package_sum() {
    cd "$root" || exit
    {
        echo "$root"
        find setup.cfg pyproject.toml src -name __pycache__ -prune -o -name '*.egg-info' -prune \
            -o -type f -exec cksum {} + | LC_ALL=C sort
    } | cksum
}

# Install the package into .venv as a user gets it, unless what is there is the same.
install_package() {
    make_venv
    sum=$(package_sum)
    if [ "$(cat "$venv/package.sum" 2>/dev/null)" = "$sum" ]; then return; fi
    echo "Installing queuectl into ${venv##*/} ..." >&2
    # setuptools would pack what an earlier build left there, deleted modules included.
    # The sum goes first: an installation that is cut off must not count as one.
    rm -rf "$root/build" "$venv/package.sum"
    quietly "$venv/bin/python" -m pip install "$root"
    rm -rf "$root/build"
    echo "$sum" >"$venv/package.sum"
}

# Install the dependency group `dev` of pyproject.toml into .venv.
install_dev_group() {
    sum=$(cksum <"$root/pyproject.toml")
    if [ "$(cat "$venv/dev.sum" 2>/dev/null)" = "$sum" ]; then return; fi
    echo "Installing the development tools into ${venv##*/} ..." >&2
    if ! "$venv/bin/python" -m pip install --help 2>/dev/null | grep -q -e '--group'; then
        quietly "$venv/bin/python" -m pip install --upgrade 'pip>=25.1'
    fi
    quietly "$venv/bin/python" -m pip install --group "$root/pyproject.toml:dev"
    echo "$sum" >"$venv/dev.sum"
}
