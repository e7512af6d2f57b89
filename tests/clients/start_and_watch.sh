#!/bin/sh
# Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs curl and sed.
set -eu
tillgate=${TILLGATE_URL:-http://localhost:8700}

# Sends a request; prints the answer, or says what is wrong and fails.
call() {
    if ! answer=$(curl -sS --max-time 15 --fail-with-body "$@"); then
        echo "$answer" | text detail >&2
        return 1
    fi
    echo "$answer"
}

# Prints a text member of a flat JSON object.
text() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p'; }

payment=$(call "$tillgate/api/start_payment" -H 'Content-Type: application/json' \
    -d "{\"amount\": 1000, \"reference\": \"${1:-7}\", \"redirect\": \"https://shop.example/thanks\"}")
echo "pay: $(echo "$payment" | text pay_url)"

for _ in $(seq 60); do
    status=$(call "$tillgate/watch/$(echo "$payment" | text watch_code)" | text status)
    [ "$status" = completed ] && echo paid && exit
    sleep 1
done
echo 'not paid yet' >&2
exit 1
