<?php
// A shop that is told by webhook when an order is paid. Needs the extensions curl and pdo_sqlite.
//
//     php -S 127.0.0.1:3000 shop.php    serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
//     php shop.php                      asks for each open order; let cron do this every few minutes
require __DIR__ . '/standard_webhooks.php';

/** Asks tillgate: status (0 without a whole answer), the answer, and the seconds to wait that it asks for. */
function call(string $path, array $headers = [], array $options = []): array
{
    $token = getenv('TILLGATE_TOKEN'); // only where listen.token_file is set
    $headers = array_merge($headers, $token ? ["Authorization: Bearer $token"] : []);
    $curl = curl_init((getenv('TILLGATE_URL') ?: 'http://localhost:8700') . $path);
    $options += [CURLOPT_HTTPHEADER => $headers, CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 15];
    curl_setopt_array($curl, $options);
    $answer = json_decode(curl_exec($curl) ?: '', true) ?? ['detail' => curl_error($curl)];
    $status = curl_errno($curl) ? 0 : curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    return [$status, $answer, curl_getinfo($curl, CURLINFO_RETRY_AFTER)];
}

/** Runs one statement. */
function sql(string $statement, array $values = []): PDOStatement
{
    static $orders;
    $orders ??= new PDO('sqlite:' . (getenv('ORDERS') ?: __DIR__ . '/orders.sqlite'));
    $done = $orders->prepare($statement);
    $done->execute($values);
    return $done;
}

function order(string $id): array|false
{
    return sql('SELECT * FROM orders WHERE id = ?', [$id])->fetch();
}

/** Starts the order's payment. However often this is done, the order has one payment: the reference says so. */
function start(array $order): void
{
    $shop = getenv('SHOP_URL') ?: 'http://localhost:3000'; // its origin must be in redirect.allowed
    $body = ['amount' => $order['amount'], 'reference' => $order['id'], 'redirect' => "$shop/orders/$order[id]"];
    $post = [CURLOPT_POSTFIELDS => json_encode($body)];
    foreach ([0.5, 1, 2, 4, 0] as $wait) {
        [$status, $answer, $asked] = call('/api/start_payment', ['Content-Type: application/json'], $post);
        $is_paid = ($answer['error'] ?? '') === 'reference_paid'; // of an earlier start, whose answer was lost
        if ($status === 200 || $is_paid) {
            sql('UPDATE orders SET watch_code = ?, pay_url = ? WHERE id = ? AND watch_code IS NULL',
                [$answer['watch_code'], $answer['pay_url'] ?? null, $order['id']]);
            $is_paid && look(order($order['id']), 'start');
            return;
        }
        if ($status && $status < 500 && $status !== 429) {
            throw new RuntimeException($answer['detail']); // reference_mismatch too: it is open for another amount
        }
        $wait && usleep((int) (max($wait, min($asked, 10)) * 1e6));
    }
    header('Retry-After: 5', true, 503);
    exit('Payments are not possible at the moment. Try again.');
}

/** Asks for the payment of an order. With no-cache, tillgate asks the gateway at once. */
function look(array $order, string $source): void
{
    [$status, $payment] = call("/watch/$order[watch_code]", ['Cache-Control: no-cache']);
    if ($status === 200) {
        settle(['watch_code' => $order['watch_code']] + $payment, $source);
    }
}

/** Marks the payment's order as paid: once, whoever says so and however often. */
function settle(array $payment, string $source): void
{
    if ($payment['status'] !== 'completed') {
        return;
    }
    $order = [$payment['watch_code'], $payment['amount']]; // the column is a number: 1000.00 and "1000" are 1000
    $open = "UPDATE orders SET state = 'paid', paid_by = ? WHERE watch_code = ? AND amount = ? AND state = 'open'";
    if (sql($open, [$source, ...$order])->rowCount()) {
        // Only here, once for each order. Send the goods from the table, which also survives a crash.
        file_put_contents('php://stdout', "paid: $payment[watch_code] by $source\n");
    } elseif (!sql('SELECT 1 FROM orders WHERE watch_code = ? AND amount = ?', $order)->fetch()) {
        error_log('not the amount of an order: ' . json_encode($payment));
    }
}

/** A webhook may never come: this is what counts. Orders that nobody will pay any more should not stay open. */
function check(): void
{
    foreach (sql("SELECT * FROM orders WHERE state = 'open' AND watch_code IS NOT NULL")->fetchAll() as $order) {
        look($order, 'check');
    }
}

/** A webhook: the status to answer with. */
function told(string $body, string $id, string $time, string $signatures): int
{
    if (!is_signed(getenv('WEBHOOK_SECRET') ?: '', $body, $id, $time, $signatures)) {
        return 401;
    }
    $event = json_decode($body, true);
    if ($event['type'] === 'payment.completed') {
        if (!sql('SELECT 1 FROM orders WHERE watch_code = ?', [$event['data']['watch_code']])->fetch()) {
            return 409; // of an order whose codes are not stored yet: it comes again
        }
        settle($event['data'], $id);
    }
    return 204; // also where it was known already: anything else is sent again
}

sql("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY AUTOINCREMENT, amount INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', watch_code TEXT UNIQUE, pay_url TEXT, paid_by TEXT)");
if (PHP_SAPI === 'cli') {
    check();
    exit;
}
$request = "$_SERVER[REQUEST_METHOD] $_SERVER[REQUEST_URI]";
if ($request === 'POST /orders') {
    $order = sql('INSERT INTO orders (amount) VALUES (?) RETURNING id', [(int) $_POST['amount']])->fetch();
    header("Location: /orders/$order[id]", true, 303);
} elseif (preg_match('~^GET /orders/(\d+)$~D', $request, $found) && ($order = order($found[1]))) {
    if (!$order['watch_code']) {
        start($order);
    } elseif ($order['state'] === 'open') {
        look($order, 'return'); // the payer may have come back from the pay page
    }
    $order = order($order['id']);
    $link = htmlspecialchars($order['pay_url'] ?? '');
    $link = $link ? "<a href=\"$link\">Pay $order[amount]</a>" : '<p>We look at your payment</p>';
    echo $order['state'] === 'paid' ? '<p>Paid</p>' : $link;
} elseif ($request === 'POST /payment-events') {
    // The body as it came: read and written again it would be other bytes.
    http_response_code(told(file_get_contents('php://input'), $_SERVER['HTTP_WEBHOOK_ID'] ?? '',
        $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? ''));
} else {
    http_response_code(404);
}
