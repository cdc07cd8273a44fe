# Shared by run and nightly: named steps that may fail without hiding the ones after them.
# shellcheck shell=bash

set -uo pipefail
exec </dev/null
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTEST_ADDOPTS
export MPLBACKEND=Agg PIP_DISABLE_PIP_VERSION_CHECK=1

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

# step NAME COMMAND...: run it, report how long it took, remember a failure.
step() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '\n=== %s\n' "$name"
    "$@" || status=$?
    if ((status)); then
        failed+=("$name")
        printf -- '--- %s FAILED with status %d after %d s\n' "$name" "$status" "$((SECONDS - start))"
    else
        printf -- '--- %s: %d s\n' "$name" "$((SECONDS - start))"
    fi
    return "$status"
}

# fresh_copy FOLDER: the working tree without anything ignored, as a clone would have it.
fresh_copy() {
    mkdir -p "$1"
    (
        cd "$root" || exit
        git ls-files -z --cached --others --exclude-standard |
            while IFS= read -r -d '' file; do
                [[ -e $file ]] && printf '%s\0' "$file"
            done |
            tar --null --files-from=- --create
    ) | tar --extract --directory="$1"
}

# readme_command MARKER: the fenced block of README.md that follows the line <!-- MARKER -->.
readme_command() {
    local text
    text=$(awk -v marker="<!-- $1 -->" '
        $0 == marker { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        inside { sub(/^\$ /, ""); print }' "$root/README.md")
    if [[ -z $text ]]; then
        echo "README.md has no fenced block after <!-- $1 -->" >&2
        return 1
    fi
    printf '%s\n' "$text"
}

# run_readme MARKER FOLDER: that block, as a reader would run it, in a fresh copy of the tree.
run_readme() {
    local command
    command=$(readme_command "$1") || return
    printf '%s\n' "$command"
    fresh_copy "$2" || return
    (cd "$2" && bash -eu -o pipefail -c "$command")
}

# sanitized memory|races PYTHON PYTEST_ARGUMENTS...: tests on an instrumented build of the extension,
# after faults planted in it were reported. PYTHON has what the tests need.
sanitized() {
    local kind=$1 python=$2 folder="$work/$1" checks library
    shift 2
    case $kind in
    memory) checks=address,undefined library=libasan ;;
    races) checks=thread library=libtsan ;;
    esac
    fresh_copy "$folder" || return
    (
        cd "$folder" || exit
        SCHUSS_SANITIZE=$checks SCHUSS_REQUIRE_NATIVE=1 \
            "$python" setup.py --quiet build_ext --inplace || exit
        # Older runtimes of the sanitizers fail where addresses are drawn from a wide range.
        still=()
        setarch -R true 2>/dev/null && still=(setarch -R)
        # Leaks are not looked for: Python itself frees little at exit. Forked children may fit.
        instrumented=(
            "${still[@]}" env PYTHONPATH=src PYTHONMALLOC=malloc
            LD_PRELOAD="$(g++ -print-file-name="$library.so") $(g++ -print-file-name=libstdc++.so)"
            ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
            TSAN_OPTIONS=halt_on_error=1:die_after_fork=0
        )
        # A report ends the process; what pytest itself had captured of it would be lost.
        "${instrumented[@]}" "$python" .ci/planted.py "$kind" &&
            "${instrumented[@]}" "$python" -m pytest --capture=sys "$@"
    )
}

# finish LOG: say what failed; the summary line of the test run in LOG comes last.
finish() {
    printf '\n=== all steps: %d s\n' "$SECONDS"
    if ((${#failed[@]})); then
        printf 'FAILED: %s\n' "${failed[@]}"
    fi
    grep -E '^=+ .*(passed|failed|error|no tests ran).* =+$' "$1" | tail -n 1
    ((${#failed[@]} == 0))
}
