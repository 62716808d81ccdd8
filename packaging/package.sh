#!/usr/bin/env bash
# package.sh PG_CONFIG...   makes, for each Postgres, into the directory dist/:
#   postgresql-NN-otp-gateway_VERSION-1_ARCH.deb          files where Debian's and PGDG's postgresql-NN look for them
#   otp_gateway-VERSION-pgNN-MACHINE-linux-gnu.tar.gz     lib/ and share/extension/, for any other server of that major
# and SHA256SUMS of all. The same commit gives the same bytes, wherever it lies: times are the commit's
# (SOURCE_DATE_EPOCH), paths in the library are not this machine's. The library's oldest glibc is this machine's: a
# package that is made on Debian 12 installs on Debian 12 and 13, and on Ubuntu 22.04 and later.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n '2,3p' "$0" >&2; exit 2; }

version=$(sed -n "s/^default_version = '\(.*\)'$/\1/p" otp_gateway.control)
architecture=$(dpkg --print-architecture)
machine=$(uname -m)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}"
export SOURCE_DATE_EPOCH
# A folder of its own: other flags would have `make build` compile everything anew.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}/package")
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
export CARGO_TARGET_DIR=$target
export RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust \
--remap-path-prefix=$target=/target --remap-path-prefix=$PWD=/otp_gateway -Cstrip=symbols"
export LC_ALL=C.UTF-8 TZ=UTC
umask 022
mkdir -p dist

dated() { # dated FILE...: nothing in a package is younger than its commit
    find "$@" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

files() { # files PG_CONFIG DIRECTORY: what `make install` installs, with the library of that Postgres
    make --no-print-directory -s install-files PG_CONFIG="$1" DESTDIR="$2" LIBRARY="$target/release/libotp_gateway.so"
}

deb() { # deb PG_CONFIG MAJOR
    local name=postgresql-$2-otp-gateway root=$target/deb-$2 installed=$target/installed-$2
    local lib=usr/lib/postgresql/$2/lib share=usr/share/postgresql/$2/extension doc=usr/share/doc/$name
    rm -rf "$root" "$installed"
    files "$1" "$installed"
    mkdir -p "$root/$lib" "$root/$share" "$root/$doc" "$root/DEBIAN"
    cp "$installed$("$1" --pkglibdir)"/otp_gateway.so "$root/$lib/"
    cp "$installed$("$1" --sharedir)"/extension/otp_gateway* "$root/$share/"
    cp -r README.md SECURITY.md docs examples contrib "$root/$doc/"
    cp packaging/copyright "$root/$doc/copyright"
    packaging/third_party.py "pg$2" | gzip -9n >"$root/$doc/third-party.txt.gz"
    {
        echo "$name ($version-1) stable; urgency=medium"
        echo
        echo "  * See /$doc/CHANGELOG.md.gz."
        echo
        echo " -- otp_gateway <otp_gateway@localhost>  $(date -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$root/$doc/changelog.Debian.gz"
    gzip -9nc CHANGELOG.md >"$root/$doc/CHANGELOG.md.gz"
    # dpkg-shlibdeps reads a source package's control file, which there is none of.
    local work=$target/shlibdeps
    rm -rf "$work"
    mkdir -p "$work/debian"
    printf 'Source: otp-gateway\n\nPackage: %s\nArchitecture: any\n' "$name" >"$work/debian/control"
    local libraries
    libraries=$(cd "$work" && dpkg-shlibdeps -O "$root/$lib/otp_gateway.so" 2>/dev/null | sed 's/^shlibs:Depends=//')
    cat >"$root/DEBIAN/control" <<C
Package: $name
Source: otp-gateway
Version: $version-1
Architecture: $architecture
Maintainer: otp_gateway <otp_gateway@localhost>
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f1)
Depends: $libraries, postgresql-$2, ca-certificates
Section: database
Priority: optional
Description: one-time passwords from SQL, for PostgreSQL $2
 otp_send and otp_verify call vendors of one-time passwords from SQL, through a
 background worker, and keep each attempt on durable record.
 .
 The server has to load it: shared_preload_libraries = 'otp_gateway', and a
 restart; then CREATE EXTENSION otp_gateway. This package restarts nothing.
C
    # After an upgrade of the package the old library runs on until a restart, which is the administrator's.
    {
        echo "otp-gateway ($version-1) stable; urgency=medium"
        echo
        echo "  Restart the server, then in each database that has the extension:"
        echo "  ALTER EXTENSION otp_gateway UPDATE"
        echo
        echo " -- otp_gateway <otp_gateway@localhost>  $(date -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$root/$doc/NEWS.Debian.gz"
    find "$root" -type d -exec chmod 755 {} +
    find "$root/usr" -type f ! -perm /111 -exec chmod 644 {} +
    chmod 644 "$root/$lib/otp_gateway.so"
    (cd "$root" && find usr -type f -printf '%P\0' | sort -z | sed -z 's,^,usr/,' | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    dated "$root"
    dpkg-deb --root-owner-group -Zxz --build "$root" "dist/${name}_$version-1_$architecture.deb" >/dev/null
    echo "   dist/${name}_$version-1_$architecture.deb"
}

tarball() { # tarball PG_CONFIG MAJOR
    local name=otp_gateway-$version-pg$2-$machine-linux-gnu installed=$target/installed-$2
    local root=$target/tar-$2/$name
    rm -rf "$target/tar-$2"
    mkdir -p "$root/lib" "$root/share/extension"
    cp "$installed$("$1" --pkglibdir)"/otp_gateway.so "$root/lib/"
    cp "$installed$("$1" --sharedir)"/extension/otp_gateway* "$root/share/extension/"
    cp README.md LICENSE CHANGELOG.md "$root/"
    packaging/third_party.py "pg$2" >"$root/third-party.txt"
    dated "$root"
    tar -C "$target/tar-$2" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" |
        gzip -9n >"dist/$name.tar.gz"
    echo "   dist/$name.tar.gz"
}

for pg_config; do
    major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    PGRX_PG_CONFIG_PATH=$pg_config cargo build -q --release --locked --no-default-features --features "pg$major" -p otp_gateway
    deb "$pg_config" "$major"
    tarball "$pg_config" "$major"
done
(cd dist && sha256sum -- *"$version"* >SHA256SUMS)
echo "   dist/SHA256SUMS"
