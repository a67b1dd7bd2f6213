#!/bin/sh
# Follows the documented behaviour of the official image: POSTGRES_USER, POSTGRES_PASSWORD,
# POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, PGDATA and
# /docker-entrypoint-initdb.d, where the first script that fails ends the start.
set -e

PGDATA=${PGDATA:-/var/lib/postgresql/data}
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}

run_script() {
    case $1 in
    *.sh) if [ -x "$1" ]; then "$1"; else . "$1"; fi ;;
    *.sql) sql "$database" -f "$1" ;;
    *.sql.gz) gzip -dc "$1" | sql "$database" ;;
    *) echo "$0: ignoring $1" ;;
    esac
}

sql() {
    on=$1
    shift
    gosu postgres psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$user" -d "$on" "$@"
}

initialise() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$method" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        echo "       Set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust for throw-away data." >&2
        exit 1
    fi
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" > "$password"
    chown postgres "$password"
    # shellcheck disable=SC2086 # several arguments on purpose
    gosu postgres initdb -D "$PGDATA" -U "$user" --pwfile="$password" $POSTGRES_INITDB_ARGS > /dev/null
    rm -f "$password"
    printf 'host all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
    gosu postgres pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start > /dev/null
    [ "$database" = postgres ] || sql postgres -c "CREATE DATABASE \"$database\""
    export PGUSER="$user" PGDATABASE="$database"
    for script in /docker-entrypoint-initdb.d/*; do
        [ -e "$script" ] && run_script "$script"
    done
    unset PGUSER PGDATABASE
    gosu postgres pg_ctl -D "$PGDATA" -m fast -w stop > /dev/null
}

case $1 in
-*) set -- postgres "$@" ;;
esac
if [ "$1" = postgres ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    [ -s "$PGDATA/PG_VERSION" ] || initialise
    shift
    exec gosu postgres postgres -D "$PGDATA" -c listen_addresses='*' "$@"
fi
exec "$@"
