<?php
// Standard Webhooks 1.0, for who does not want a package for it (there is one: standard-webhooks/standard-webhooks).

/** Whether tillgate sent this body: signed with this key (whsec_…), at most five minutes ago. */
function is_signed(string $secret, string $body, string $id, string $timestamp, string $signatures): bool
{
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
    if (!$key || $id === '' || !preg_match('/^\d{1,12}$/D', $timestamp) || abs(time() - (int) $timestamp) > 300) {
        return false;
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    // Several while one key takes the place of another.
    $matching = array_filter(explode(' ', $signatures), fn ($signature) => hash_equals($expected, $signature));
    return $matching !== [];
}
