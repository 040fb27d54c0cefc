# Sourced by prepare.sh: compiles RocksDB once as a static library, which is kept next to the target directory.
# shellcheck shell=bash
#
# The build script of librocksdb-sys compiles 342 files one by one, and spends most of the time on the same headers:
# twenty minutes on two cores. Compiling twelve chunks of about thirty files each takes less than three minutes. A plain
# `cargo build` outside of these scripts still compiles RocksDB with the crate's build script.

rocksdb_chunks=12

# Defines and language level of librocksdb-sys' build script for Linux with the feature `lz4`. Instruction sets are the
# target's defaults, as in that script.
rocksdb_flags=(
    -O3 -fPIC -ffunction-sections -fdata-sections -std=c++20 -include cstdint -w
    -DNDEBUG=1 -DLZ4=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX
    -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
    -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
)

# crate_directory NAME: prints the directory with the sources of the locked version of a crate.
crate_directory() {
    cargo metadata --format-version 1 --locked --quiet |
        jq -er --arg name "$1" 'first(.packages[] | select(.name == $name)) | .manifest_path | rtrimstr("/Cargo.toml")'
}

# Builds the library unless it exists, and sets the variables that make cargo use it. Set ROCKSDB_LIB_DIR or
# ROCKSDB_COMPILE=1 to skip this.
need_rocksdb() {
    [ -z "${ROCKSDB_LIB_DIR:-}${ROCKSDB_COMPILE:-}" ] || return 0
    need jq jq
    local sources lz4 key home
    sources=$(crate_directory librocksdb-sys) || die "cargo metadata does not know librocksdb-sys; is Cargo.lock current?"
    lz4=$(crate_directory lz4-sys) || die "cargo metadata does not know lz4-sys; is Cargo.lock current?"
    # The key changes with the version of the crates, the compiler and the flags.
    key=$(printf '%s\n' "$(basename "$sources")" "$(basename "$lz4")" "$(clang++ --version)" "${rocksdb_flags[@]}" \
        "$rocksdb_chunks" | sha256sum | cut -c1-16)
    home=$(dirname "$CARGO_TARGET_DIR")/rocksdb/$key
    [ -e "$home/librocksdb.a" ] || build_rocksdb "$sources" "$lz4/liblz4/lib" "$home"
    export ROCKSDB_LIB_DIR=$home ROCKSDB_STATIC=1
}

# build_rocksdb SOURCES LZ4_HEADERS DIRECTORY: compiles in a temporary directory, and renames it to DIRECTORY when it is
# complete.
build_rocksdb() {
    local sources=$1 lz4=$2 home=$3 work began=$SECONDS
    mkdir -p "$(dirname "$home")"
    work=$(mktemp -d "$home.XXXXXX")
    say "compiling RocksDB once, in $((rocksdb_chunks + 1)) parts (about three minutes on two cores)"
    # build_version.cc is generated for each release; the crate has it outside of RocksDB's source tree.
    sed 's/[[:space:]]//g' "$sources/rocksdb_lib_sources.txt" | grep -v -e '^$' -e '^util/build_version\.cc$' |
        sed 's/.*/#include "&"/' >"$work/all"
    split -n "l/$rocksdb_chunks" -d --additional-suffix=.cc "$work/all" "$work/chunk-"
    cp "$sources/build_version.cc" "$work/version.cc"
    local compile=(clang++ "${rocksdb_flags[@]}" -I"$sources/rocksdb/include" -I"$sources/rocksdb" -I"$sources" -I"$lz4")
    # shellcheck disable=SC2016
    printf '%s\0' "$work"/*.cc | xargs -0 -P "$(nproc)" -I '{}' sh -c '
        "$@" -c "$0" -o "${0%.cc}.o" || exit 255
        printf "   %s\n" "$(basename "$0" .cc)"' '{}' "${compile[@]}" ||
        die "RocksDB cannot be compiled in chunks (see $work); ROCKSDB_COMPILE=1 uses the crate's build script instead"
    ar crs "$work/librocksdb.a" "$work"/*.o
    rm "$work"/*.o "$work"/*.cc "$work/all"
    # Another build may have finished first. Then the rename fails, and that build's library is used.
    mv -T "$work" "$home" 2>/dev/null || rm -rf "$work"
    [ -e "$home/librocksdb.a" ] || die "cannot write $home/librocksdb.a"
    say "compiled RocksDB in $((SECONDS - began)) s"
}
