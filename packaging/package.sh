#!/usr/bin/env bash
# package.sh [--as-built] [--into DIRECTORY] POSTGRES...   makes, for each Postgres, into dist/ or that directory:
#   postgresql-NN-otp-gateway_VERSION-1_ARCH.deb         files where Debian's and PGDG's postgresql-NN look for them
#   otp_gateway-VERSION-pgNN-MACHINE-linux-gnu.tar.gz    lib/ and share/extension/, for any other server of that major
# and SHA256SUMS of all. POSTGRES is a pg_config, or a major: Debian's own where its headers are here, else PyPI's.
# The same commit gives the same bytes wherever it lies: times are the commit's (SOURCE_DATE_EPOCH), and no path in the
# library is this machine's. The oldest glibc is this machine's: what is made on Debian 12 installs there and later.
# --as-built takes the library that `make build` makes, which says where it was built and has all its symbols.
set -euo pipefail
cd "$(dirname "$0")/.."
as_built= into=dist
while [[ ${1:-} == --* ]]; do
    case $1 in
    --as-built) as_built=yes ;;
    --into) into=$2 && shift ;;
    *) break ;;
    esac
    shift
done
[[ $# -gt 0 && $1 != --* ]] || { sed -n '2,5p' "$0" >&2; exit 2; }

version=$(sed -n "s/^default_version = '\(.*\)'$/\1/p" otp_gateway.control)
architecture=$(dpkg --print-architecture)
machine=$(uname -m)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}"
export LC_ALL=C.UTF-8 TZ=UTC
PATH=$HOME/.cargo/bin:$PATH
# Cargo's own environment would add to what is built here.
unset MAKEFLAGS MAKELEVEL DESTDIR
umask 022
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if [ -z "$as_built" ]; then
    # A folder of its own: other flags would have `make build` compile everything anew.
    target=$target/package
    # pgrx writes its bindings by rustfmt, which takes the settings of a folder above: they are not to hang on where it
    # lies.
    mkdir -p "$target"
    : >"$target/rustfmt.toml"
    sysroot=$(rustc --print sysroot)
    RUSTFLAGS=
    # The last one that fits counts, and the target directory may lie in this one.
    for place in "$PWD=/otp_gateway" "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$sysroot=/rust" "$target=/target"; do
        RUSTFLAGS+=" --remap-path-prefix=$place"
    done
    export RUSTFLAGS="$RUSTFLAGS -Cstrip=symbols"
fi
export CARGO_TARGET_DIR=$target
mkdir -p "$into"
into=$(realpath "$into")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pg_config_of() { # pg_config_of POSTGRES: its pg_config
    if [[ ! $1 =~ ^[0-9]+$ ]]; then
        echo "$1"
    elif [ -e "/usr/include/postgresql/$1/server/postgres.h" ]; then
        echo "/usr/lib/postgresql/$1/bin/pg_config"
    else
        tests/postgres.sh "${OTP_SERVERS:=/opt/otp_gateway/postgres}" "$1" >&2
        echo "$OTP_SERVERS/$1/bin/pg_config"
    fi
}

finish() { # finish DIRECTORY: whatever the umask was, and nothing younger than the commit
    find "$1" -type d -exec chmod 755 {} +
    find "$1" -type f -exec chmod 644 {} +
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

entry() { # entry PACKAGE TEXT: as Debian's changelog and NEWS have it
    printf '%s (%s-1) stable; urgency=medium\n\n%s\n\n -- %s  %s\n' \
        "$1" "$version" "$2" "$maintainer" "$(date -R -d "@$SOURCE_DATE_EPOCH")"
}

maintainer='otp_gateway authors <otp-gateway@packages.invalid>'

deb() { # deb MAJOR: of what is in $staged
    local name=postgresql-$1-otp-gateway
    local root=$work/deb-$1 doc=$work/deb-$1/usr/share/doc/$name libraries size
    mkdir -p "$root/usr/lib/postgresql/$1/lib" "$root/usr/share/postgresql/$1/extension" "$doc" "$root/DEBIAN"
    cp "$staged$pkglibdir/otp_gateway.so" "$root/usr/lib/postgresql/$1/lib/"
    cp "$staged$sharedir"/extension/otp_gateway* "$root/usr/share/postgresql/$1/extension/"
    cp -r README.md SECURITY.md docs examples contrib monitoring "$doc/"
    { cat packaging/copyright; echo; packaging/third_party.py dep5 "pg$1"; } >"$doc/copyright"
    gzip -9nc "$work/third-party.txt" >"$doc/third-party.txt.gz"
    gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
    entry "$name" "  * changelog.gz, beside this file, says what changed." | gzip -9n >"$doc/changelog.Debian.gz"
    # Which apt-listchanges shows when the package is upgraded.
    entry "$name" "  The server has the old library until it is restarted, which this package does
  not do. Then, in each database that has the extension:
  ALTER EXTENSION otp_gateway UPDATE" | gzip -9n >"$doc/NEWS.Debian.gz"
    finish "$root"
    size=$(du -sk --apparent-size "$root/usr" | cut -f1)
    # dpkg-shlibdeps reads the control file of a source package, which there is none of.
    mkdir -p "$work/source/debian"
    printf 'Source: otp-gateway\n\nPackage: %s\nArchitecture: any\n' "$name" >"$work/source/debian/control"
    libraries=$(cd "$work/source" && dpkg-shlibdeps -O "$root/usr/lib/postgresql/$1/lib/otp_gateway.so" |
        sed -n 's/^shlibs:Depends=//p')
    cat >"$root/DEBIAN/control" <<C
Package: $name
Source: otp-gateway
Version: $version-1
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $size
Depends: postgresql-$1, ca-certificates, $libraries
Section: database
Priority: optional
Description: one-time passwords from SQL, for PostgreSQL $1
 otp_send and otp_verify call vendors of one-time passwords from SQL, through a
 background worker, and keep each attempt on durable record.
 .
 The server has to load it: shared_preload_libraries = 'otp_gateway', and a
 restart; then CREATE EXTENSION otp_gateway. This package restarts nothing.
C
    (cd "$root" && find usr -type f | sort | xargs -d '\n' md5sum) >"$root/DEBIAN/md5sums"
    finish "$root/DEBIAN"
    local package=$into/${name}_$version-1_$architecture.deb
    SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
    echo "   $package"
}

tarball() { # tarball MAJOR: of what is in $staged
    local name=otp_gateway-$version-pg$1-$machine-linux-gnu
    local root=$work/tar-$1/$name
    mkdir -p "$root/lib" "$root/share/extension" "$root/licenses"
    cp "$staged$pkglibdir/otp_gateway.so" "$root/lib/"
    cp "$staged$sharedir"/extension/otp_gateway* "$root/share/extension/"
    cp README.md CHANGELOG.md "$root/"
    cp LICENSE "$root/licenses/otp_gateway.txt"
    cp "$work/third-party.txt" "$root/licenses/"
    finish "$root"
    tar -C "$work/tar-$1" --sort=name --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -9n >"$into/$name.tar.gz"
    echo "   $into/$name.tar.gz"
}

for postgres; do
    pg_config=$(pg_config_of "$postgres")
    major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    pkglibdir=$("$pg_config" --pkglibdir) sharedir=$("$pg_config" --sharedir) staged=$work/staged-$major
    # With the epoch cargo would compile anew, at each commit, all that holds C.
    env -u SOURCE_DATE_EPOCH make --no-print-directory -s install PG= PG_CONFIG="$pg_config" DESTDIR="$staged" \
        >"$work/make.log" 2>&1 || { cat "$work/make.log" >&2; exit 1; }
    packaging/third_party.py texts "pg$major" >"$work/third-party.txt"
    deb "$major"
    tarball "$major"
done
(cd "$into" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS)
echo "   $into/SHA256SUMS"
