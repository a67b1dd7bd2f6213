#!/bin/sh
set -e
# Under cgroup v2 a nested runtime can only limit its containers when the controllers are handed
# down, and they are only handed down by a group that holds no process itself.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/init
    xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs || true
    sed -e 's/ / +/g' -e 's/^/+/' < /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control
fi
exec /usr/local/bin/dagger-engine "$@"
