# Sourced by scripts/build: moves symbols out of binaries.
# shellcheck shell=bash

# split_symbols BINARY: moves the symbols of a binary into BINARY.debug, and leaves a reference to that file in the binary.
# A binary without symbols was split before, unless cargo has linked it again; it keeps its symbol file.
split_symbols() {
    local sections
    sections=$(LC_ALL=C readelf --sections --wide "$1")
    if [[ $sections != *" .symtab "* ]]; then
        [ -s "$1.debug" ] && return
        printf 'error: %s has no symbols, and %s.debug is missing: remove %s and build again\n' "$1" "$1" "$1" >&2
        return 1
    fi
    objcopy --only-keep-debug "$1" "$1.debug.partial"
    mv "$1.debug.partial" "$1.debug"
    # This must create a new file, because the binary is a hard link to a file that cargo needs for its next build.
    objcopy --strip-all --add-gnu-debuglink="$1.debug" "$1" "$1.stripped"
    mv "$1.stripped" "$1"
}
