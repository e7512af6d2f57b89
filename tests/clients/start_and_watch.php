<?php
// Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs the curl extension.
$tillgate = getenv('TILLGATE_URL') ?: 'http://localhost:8700';

function call(string $url, array $options = []): array
{
    $curl = curl_init($url);
    curl_setopt_array($curl, $options + [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 15]);
    $answer = json_decode(curl_exec($curl) ?: '', true) ?? ['detail' => curl_error($curl)];
    return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $answer];
}

$order = ['amount' => 1000, 'reference' => $argv[1] ?? '7', 'redirect' => 'https://shop.example/thanks'];
[$status, $payment] = call("$tillgate/api/start_payment", [
    CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
    CURLOPT_POSTFIELDS => json_encode($order),
]);
if ($status !== 200) {
    fwrite(STDERR, $payment['detail'] . "\n");
    exit(1);
}
echo "pay: {$payment['pay_url']}\n";

for ($i = 0; $i < 60; $i++) {
    [$status, $watch] = call("$tillgate/watch/{$payment['watch_code']}");
    if ($status === 200 && $watch['status'] === 'completed') {
        echo "paid\n";
        exit;
    }
    sleep(1);
}
fwrite(STDERR, "not paid yet\n");
exit(1);
