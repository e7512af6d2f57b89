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

/** Starts the order's payment. However often this is done, the order has one payment: the key says so. */
function start(array $order): void
{
    $shop = getenv('SHOP_URL') ?: 'http://localhost:3000'; // its origin must be in redirect.allowed
    $body = json_encode(['amount' => $order['amount'], 'redirect' => "$shop/orders/$order[id]"]);
    $headers = ['Content-Type: application/json', "Idempotency-Key: order-$order[id]"];
    foreach ([0.5, 1, 2, 4, 0] as $wait) {
        [$status, $answer, $asked] = call('/api/start_payment', $headers, [CURLOPT_POSTFIELDS => $body]);
        if ($status === 200) {
            sql('UPDATE orders SET watch_code = ?, pay_url = ? WHERE id = ? AND watch_code IS NULL',
                [$answer['watch_code'], $answer['pay_url'], $order['id']]);
            return;
        }
        if ($status && $status < 500 && $status !== 429) {
            throw new RuntimeException($answer['detail']);
        }
        $wait && usleep((int) (max($wait, min($asked, 10)) * 1e6));
    }
    header('Retry-After: 5', true, 503);
    exit('Payments are not possible at the moment. Try again.');
}

/** Marks the payment's order as paid: once, whoever says so and however often. */
function settle(array $payment, string $source): void
{
    if ($payment['status'] !== 'completed') {
        return;
    }
    $order = [$payment['watch_code'], $payment['amount']];
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
        [$status, $payment] = call("/watch/$order[watch_code]");
        if ($status === 200) {
            settle(['watch_code' => $order['watch_code']] + $payment, 'check');
        }
    }
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
        $order = order($order['id']);
    }
    $link = htmlspecialchars($order['pay_url'] ?? '');
    echo $order['state'] === 'open' ? "<a href=\"$link\">Pay $order[amount]</a>" : '<p>Paid</p>';
} elseif ($request === 'POST /payment-events') {
    // The body as it came: read and written again it would be other bytes.
    $body = file_get_contents('php://input');
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    [$time, $signatures] = [$_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? ''];
    $signed = is_signed(getenv('WEBHOOK_SECRET') ?: '', $body, $id, $time, $signatures);
    $event = $signed ? json_decode($body, true) : [];
    if ($signed && $event['type'] === 'payment.completed') {
        settle($event['data'], $id);
    }
    http_response_code($signed ? 204 : 401); // 204 also where it was known already: anything else is sent again
} else {
    http_response_code(404);
}
