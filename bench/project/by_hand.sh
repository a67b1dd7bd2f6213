#!/bin/sh
# The same work with Docker by hand. $1 is the interval of the database's health check in seconds,
# as the usual set-up has it, or "poll": asked every 0.2 s instead.
set -eu
docker rm --force bench-db >/dev/null 2>&1 || true
trap 'docker rm --force bench-db >/dev/null 2>&1' EXIT
start() {
    docker run --detach --name bench-db --publish 127.0.0.1:15432:5432 "$@" \
        --env POSTGRES_PASSWORD=postgres --env POSTGRES_DB=test_db \
        "${BENCH_IMAGES}postgres:15-alpine" >/dev/null
}
if [ "$1" = poll ]; then
    start
    until docker exec bench-db pg_isready -q -h 127.0.0.1; do sleep 0.2; done
else
    start --health-cmd "pg_isready -h 127.0.0.1" --health-interval "$1s"
    until docker inspect --format '{{.State.Health.Status}}' bench-db | grep -qx healthy; do
        sleep 0.2
    done
fi
export DATABASE_URL=postgresql://postgres:postgres@127.0.0.1:15432/test_db
if [ -n "${BENCH_GATES:-}" ]; then
    $BENCH_GATES
else
    ruff check app tests
    pytest -q -p no:cacheprovider --cov=app --cov-report=term --cov-report=html --cov-report=xml \
        --junitxml=r.xml --cov-fail-under=80
fi
cp /etc/ssl/certs/ca-certificates.crt certificates.crt # the machine's own
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
docker build --quiet --network host \
    --build-arg "PYTHON=${BENCH_IMAGES}python:3.11-slim" --tag "$BENCH_LOCAL" .
[ -z "${BENCH_REFERENCE:-}" ] || docker push --quiet "$BENCH_LOCAL"
