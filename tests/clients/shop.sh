#!/bin/sh
# A shop for the command line; its order table is a directory. Needs curl and sed.
#
#     sh shop.sh order 7 1000    prints where the payer of order 7 pays, or that it is paid; safe to repeat
#     sh shop.sh wait 7          waits until it is paid
#     sh shop.sh check           asks for each open order; let cron do this every few minutes
#
# No webhooks here: openssl takes the key to verify them as an argument, where every process could read it.
set -eu
tillgate=${TILLGATE_URL:-http://localhost:8700}
shop=${SHOP_URL:-http://localhost:3000} # its origin must be in redirect.allowed
orders=${ORDERS:-orders}
mkdir -p "$orders"

# Sends a request; prints the answer, or says what is wrong and fails. A start may always be tried again: it has a
# reference. The token goes through a pipe, for the same reason as above; there is one where listen.token_file is set.
call() {
    path=$1 && shift
    for pause in 1 2 4 8 0; do
        answer=$(echo "${TILLGATE_TOKEN:+header = \"Authorization: Bearer $TILLGATE_TOKEN\"}" |
            curl -sS -K - --max-time 90 -w '\n%{http_code}' "$tillgate$path" "$@") || true
        case ${answer##*
} in
        200 | 409) echo "$answer" | sed '$d' && return ;; # 409 reference_paid is of a start whose answer was lost
        000 | 429 | 5??) sleep $pause ;;
        *) break ;; # reference_mismatch too: the payment is open for another amount
        esac
    done
    echo "$answer" | member detail >&2
    return 1
}

# Prints a member of a flat JSON object, a text or a number.
member() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p; t; s/.*"'"$1"'": *\([0-9.]*\).*/\1/p'; }

# Prints what an order has there.
field() { sed -n "s/^$2=//p" "$1"; }

# Asks for the payment of an order. With no-cache, tillgate asks the gateway at once.
look() {
    payment=$(call "/watch/$(field "$1" watch_code)" -H 'Cache-Control: no-cache') && settle "$1" "$payment" "$2"
}

# Marks the order as paid if this payment says so: once, whoever says so and however often.
settle() {
    order=$1 payment=$2 source=$3
    [ "$(echo "$payment" | member status)" = completed ] || return 0
    # The gateway may write 1000.00, or "1000".
    if ! grep -qxF "amount=$(echo "$payment" | member amount | sed 's/\.0*$//')" "$order"; then
        echo "not the amount of the order: $payment" >&2
        return 1
    elif ln "$order" "${order%.order}.paid" 2>/dev/null; then
        # Only here, once for each order: of all who try, one makes the link.
        echo "paid: $(field "$order" watch_code) by $source"
    fi
}

case ${1-} in
order)
    order=$orders/$2.order
    if [ ! -e "$order" ]; then
        payment=$(call /api/start_payment -H 'Content-Type: application/json' \
            -d "{\"amount\": $3, \"reference\": \"$2\", \"redirect\": \"$shop/orders/$2\"}")
        printf 'amount=%s\nwatch_code=%s\npay_url=%s\n' "$3" "$(echo "$payment" | member watch_code)" \
            "$(echo "$payment" | member pay_url)" >"$orders/$2.$$"
        ln "$orders/$2.$$" "$order" 2>/dev/null || true # the first answer that is stored is the order's, and no other
        rm "$orders/$2.$$"
    fi
    grep -qxF "amount=$3" "$order" || { echo "order $2 is for $(field "$order" amount)" >&2 && exit 1; }
    [ -e "$orders/$2.paid" ] || look "$order" order || true
    if [ -e "$orders/$2.paid" ]; then echo "order $2 is paid"; else echo "pay: $(field "$order" pay_url)"; fi
    ;;
wait)
    order=$orders/$2.order
    while [ ! -e "$orders/$2.paid" ]; do
        # The answer comes when the state changes, after 25 seconds at the latest.
        payment=$(call "/watch/$(field "$order" watch_code)?wait=25")
        settle "$order" "$payment" wait
    done
    ;;
check)
    # This is what counts. Orders that nobody will pay any more should not stay open.
    for order in "$orders"/*.order; do
        [ ! -e "$order" ] || [ -e "${order%.order}.paid" ] || look "$order" check || true
    done
    ;;
*)
    sed -n '3,6s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
