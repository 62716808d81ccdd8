# image_steps.sh MAJOR   plays packaging/Dockerfile where no image can be pulled: in a Debian with its own Postgres,
# laid out as the official image lays out PGDG's; test.sh runs it there. /test has the Dockerfile, package and flow.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin PG_MAJOR=$1
bin=/usr/lib/postgresql/$PG_MAJOR/bin share=/usr/share/postgresql data=/var/lib/postgresql/data

quietly() { "$@" >/tmp/log 2>&1 || { tail -n 30 /tmp/log >&2; exit 1; }; }
quietly apt-get update
quietly apt-get install -y --no-install-recommends postgresql-common
sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
quietly apt-get install -y --no-install-recommends "postgresql-$PG_MAJOR"
# The official image's own Dockerfile does this.
mv "$share/$PG_MAJOR/postgresql.conf.sample" "$share/"
ln -s ../postgresql.conf.sample "$share/$PG_MAJOR/"

copy() { # copy "SOURCE TO": as docker build does in the directory of dist/
    local words
    read -ra words <<<"$1"
    mkdir -p "${words[1]}"
    # It has patterns.
    cp /test/${words[0]#dist/} "${words[1]}"
}
eval "copy \"$(sed -n 's/^COPY //p' /test/Dockerfile)\""
quietly sh -ec "$(sed -n '/^RUN /,/[^\\]$/p' /test/Dockerfile | sed 's/^RUN //')"
[ ! -e /packages ] || { echo "image_steps.sh: the package is left in the image" >&2; exit 1; }

install -d -o postgres -g postgres "$data"
as_postgres() { su postgres -c "$*"; }
quietly as_postgres "$bin/initdb -D $data -A trust"
quietly as_postgres "$bin/pg_ctl -D $data -w -l $data/log start"
as_postgres "psql -XAtq -v ON_ERROR_STOP=1 -f /test/flow.sql postgres"
quietly as_postgres "$bin/pg_ctl -D $data -w -m fast stop"
echo "   the Dockerfile's steps: a new cluster preloads it, and it works"
