# A container engine in namespaces of its own, where nothing outside is reached, changed or left behind, with `docker` as
# its name. To be sourced by a script that runs in them; wants $STORE, a directory to keep images in, and $CHECKERS.

ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
umount /sys/fs/cgroup/unified 2>/dev/null || true # crun takes cgroups of version 1 or 2, not of both

mkdir -p "$STORE/bin" "$STORE/networks" "$STORE/target"
export PATH="$STORE/bin:$CHECKERS:$PATH"
export CONTAINERS_STORAGE_CONF="$STORE/storage.conf" CONTAINERS_CONF="$STORE/containers.conf" BUILDAH_ISOLATION=chroot
cat > "$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "vfs"
graphroot = "$STORE/graph"
runroot = "/run/storage"
END
# Limits above our own, the default, cannot be set everywhere.
cat > "$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$STORE/networks"
END
# What an earlier run was ended over. Containers on whose network others are go when those have gone.
podman pod rm --all --force > /dev/null 2>&1 || true
podman rm --all --force > /dev/null 2>&1 || podman rm --all --force > /dev/null 2>&1 || podman rm --all --force > /dev/null
podman volume prune --force > /dev/null

# Nothing can be pulled, so others stand in. For Alpine's Rust: an image with nothing in it, over which this machine's own
# toolchain and the crates that it has are laid while it builds. What it builds stays outside the image's layers, of which
# vfs keeps each as a whole copy.
if ! podman image exists localhost/builder; then
  base=$(mktemp -d)
  mkdir -p "$base/tmp" "$base/usr" "$base/toolchain" "$base/cargo/registry" "$base/etc/alternatives"
  chmod 1777 "$base/tmp"
  for link in bin lib lib64; do ln -s "usr/$link" "$base/$link"; done
  tar -C "$base" -c . | podman import --change 'ENV PATH=/toolchain/bin:/usr/bin' --change 'ENV CARGO_HOME=/cargo' \
    --change 'ENV CARGO_NET_OFFLINE=true' - localhost/builder > /dev/null 2>&1
fi
# For Alpine's Python: this machine's.
python=docker.io/library/python:3.13-alpine
if ! podman image exists $python; then
  {
    ls /usr/bin/python3
    ls -d /usr/lib/python3.*
    ldd /usr/bin/python3 /usr/lib/python3.*/lib-dynload/*.so | grep -o '/[^ ]*\.so[^ ]*' | grep -v lib-dynload | sort -u
  } | tar -C / -ch --exclude=__pycache__ --exclude=test -T - 2> /dev/null |
    podman import --change 'ENV PATH=/usr/bin' - $python > /dev/null 2>&1
fi

sysroot=$(rustc --print sysroot)
cat > "$STORE/bin/docker" <<END
#!/bin/sh
case \$1 in
  compose)
    shift
    # Where there is no systemd nothing else makes the health checks that are waited for.
    while sleep 2; do podman ps -q --filter health=starting | xargs -r -n 1 podman healthcheck run; done > /dev/null 2>&1 &
    podman-compose "\$@"
    code=\$?
    kill \$!
    exit \$code ;;
  build)
    shift
    exec podman build --format docker -v /usr:/usr:ro -v /etc/alternatives:/etc/alternatives:ro \
      -v "$STORE/target:/build/target" -v "$sysroot:/toolchain:ro" -v "${CARGO_HOME:-$HOME/.cargo}/registry:/cargo/registry:ro" \
      --build-arg BUILDER=localhost/builder --build-arg CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu \
      --build-arg RUSTFLAGS='-C target-feature=+crt-static' "\$@" ;;
  *) exec podman "\$@" ;;
esac
END
chmod +x "$STORE/bin/docker"
