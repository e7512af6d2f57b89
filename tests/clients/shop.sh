#!/bin/sh
# A shop for the command line; its order table is a directory. Needs curl and sed.
#
#     sh shop.sh order 7 1000    starts the payment of order 7, and prints where to send the payer; safe to repeat
#     sh shop.sh wait 7          waits until it is paid
#     sh shop.sh check           asks for each open order; let cron do this every few minutes
#
# No webhooks here: openssl takes the key to verify them as an argument, where every process could read it.
set -eu
tillgate=${TILLGATE_URL:-http://localhost:8700}
shop=${SHOP_URL:-http://localhost:3000} # its origin must be in redirect.allowed
orders=${ORDERS:-orders}
mkdir -p "$orders"

# Sends a request; prints the answer, or says what is wrong and fails. Try again is what a start may always do: it has
# a key. The token goes through a pipe, for the same reason as above; there is one where listen.token_file is set.
call() {
    path=$1 && shift
    for pause in 1 2 4 8 0; do
        answer=$(echo "${TILLGATE_TOKEN:+header = \"Authorization: Bearer $TILLGATE_TOKEN\"}" |
            curl -sS -K - --max-time 90 -w '\n%{http_code}' "$tillgate$path" "$@") || true
        case ${answer##*
} in
        200) echo "$answer" | sed '$d' && return ;;
        000 | 429 | 5??) sleep $pause ;;
        *) break ;;
        esac
    done
    echo "$answer" | member detail >&2
    return 1
}

# Prints a member of a flat JSON object, a text or a number.
member() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p; t; s/.*"'"$1"'": *\([0-9]*\).*/\1/p'; }

# Prints the watch code of an order.
watch_code() { sed -n 's/^watch_code=//p' "$1"; }

# Marks the order as paid if this payment says so: once, whoever says so and however often.
settle() {
    order=$1 payment=$2 source=$3
    [ "$(echo "$payment" | member status)" = completed ] || return 0
    if ! grep -qxF "amount=$(echo "$payment" | member amount)" "$order"; then
        echo "not the amount of the order: $payment" >&2
        return 1
    elif ln "$order" "${order%.order}.paid" 2>/dev/null; then
        # Only here, once for each order: of all who try, one makes the link.
        echo "paid: $(watch_code "$order") by $source"
    fi
}

case ${1-} in
order)
    payment=$(call /api/start_payment -H 'Content-Type: application/json' -H "Idempotency-Key: order-$2" \
        -d "{\"amount\": $3, \"redirect\": \"$shop/orders/$2\"}")
    printf 'amount=%s\nwatch_code=%s\n' "$3" "$(echo "$payment" | member watch_code)" >"$orders/$2.new"
    mv "$orders/$2.new" "$orders/$2.order"
    echo "pay: $(echo "$payment" | member pay_url)"
    ;;
wait)
    order=$orders/$2.order
    while [ ! -e "$orders/$2.paid" ]; do
        # The answer comes when the state changes, after 25 seconds at the latest.
        payment=$(call "/watch/$(watch_code "$order")?wait=25")
        settle "$order" "$payment" wait
    done
    ;;
check)
    # This is what counts. Orders that nobody will pay any more should not stay open.
    for order in "$orders"/*.order; do
        [ ! -e "${order%.order}.paid" ] || continue
        if payment=$(call "/watch/$(watch_code "$order")"); then settle "$order" "$payment" check || true; fi
    done
    ;;
*)
    sed -n '3,6s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
