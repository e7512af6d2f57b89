# What a container of the image does that deploy/README.md promises, beyond what it says to type. After engine.sh.

podman image inspect tillgate > "$STORE/image.json"

# As in a Pod: another container's network, the admin listener open, a secret volume (root's, mode 0440), nothing else.
secret=$(mktemp -d)
chmod 0755 "$secret"
podman run -d --name app tillgate sandbox > /dev/null
pod() {
  podman run -d --name "$1" --network container:app --user 65532:0 --read-only --cap-drop ALL \
    --security-opt no-new-privileges --tmpfs /var/lib/tillgate:mode=0777 --tmpfs /run/tillgate:mode=0777 -v "$secret:/run/secrets/tillgate:ro" \
    -e TILLGATE_MERCHANT__SECRET_FILE=/run/secrets/tillgate/merchant_secret -e TILLGATE_ADMIN__ADDRESS=:8701 \
    -e TILLGATE_STORE__URL=file:/var/lib/tillgate -e TILLGATE_GATEWAY__URL=http://localhost:8081 \
    -e TILLGATE_LISTEN__ADDRESS='["localhost:8700", "unix:/run/tillgate/api.sock"]' tillgate > /dev/null
}
pod tillgate
if podman healthcheck run tillgate; then echo "healthy without a secret" >&2; exit 1; fi
printf sandbox_secret_not_worth_stealing > "$secret/merchant_secret"
chmod 0440 "$secret/merchant_secret"
podman exec tillgate /tillgate health --wait 20s
podman healthcheck run tillgate
address=$(podman inspect app --format '{{.NetworkSettings.IPAddress}}')
curl -sf "http://$address:8701/readyz" > /dev/null
curl -sf "http://$address:8701/metrics" | grep -q tillgate_build_info
if curl -s --max-time 5 "http://$address:8700/watch/x"; then echo "the API is open to others" >&2; exit 1; fi
podman exec tillgate /tillgate check --online --start > /dev/null
podman exec tillgate /tillgate deliveries > /dev/null
if podman exec tillgate /tillgate check | grep 'every user of this machine'; then exit 1; fi
podman stop --time 20 tillgate > /dev/null
echo "ended with $(podman inspect tillgate --format '{{.State.ExitCode}}')"
if podman logs tillgate 2>&1 | grep '"level":"ERROR"'; then exit 1; fi
podman rm --force tillgate > /dev/null
podman rm --force app > /dev/null
