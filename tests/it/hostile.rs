//! The API against those who mean harm: other names, usual paths, odd JSON, forged lines of the log.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hyper::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Answer, ORDER, Program, Sidecar, Wire, address_of, call, calls, free_port, get_at, metric_at,
    post, start_at, until,
};
use crate::scripted::{Act, Gateway};
use crate::sockets;

#[tokio::test]
async fn the_malformed_requests_get_one_refusal_from_the_admin_listener_and_the_sandbox_too() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
    let sandbox = address_of(&gateway);
    let mut wrong = Vec::new();
    for (name, bytes, _) in sockets::malformed() {
        for (listener, address, good) in [
            ("admin", admin, "GET /livez HTTP/1.1\r\n"),
            ("sandbox", sandbox, "GET /dev/api HTTP/1.1\r\n"),
        ] {
            let bytes = [&bytes, good.as_bytes(), b"Host: localhost\r\n\r\n"].concat();
            match sockets::exchange(address, bytes).await {
                Ok(answers) if answers.len() == 1 && (400..500).contains(&answers[0].status) => {}
                other => wrong.push(format!("{listener}, {name}: {other:?}")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        calls(&gateway).await,
        (0, 0),
        "something was taken for a start or a watch"
    );
    assert_eq!(get_at(admin, "/livez").await.status, 200);
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

/// What stands in the Host of somebody who came by a name that is not this machine's own, or who wants to hide it.
const HOSTS: [&str; 24] = [
    "Host: evil.example",
    "Host: localhost.evil.example",
    "Host: evil-localhost",
    "Host: localhost.",
    "Host: localhost.localdomain",
    "Host: 127.0.0.1.nip.io",
    "Host: 127.0.0.1.",
    "Host: 127.0.0.2",
    "Host: 127.1",
    "Host: 127.000.000.001",
    "Host: 2130706433",
    "Host: 0x7f000001",
    "Host: 017700000001",
    "Host: 0.0.0.0",
    "Host: [::]",
    "Host: [::ffff:127.0.0.1]",
    "Host: [0:0:0:0:0:0:0:1]",
    "Host: [::1%25lo]",
    "Host: user@localhost",
    "Host: localhost@evil.example",
    "Host: localhost:8700:8700",
    "Host:",
    "X-Host: localhost",
    "Host: localhost\r\nHost: evil.example",
];

#[tokio::test]
async fn nobody_comes_in_under_another_name() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
    let length = ORDER.len();
    let start =
        format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{ORDER}");
    for host in HOSTS {
        for (address, line, rest) in [
            (api, "POST /api/start_payment", &*start),
            (api, "GET /watch/x", "\r\n"),
            (api, "GET /watch/x?wait=1", "\r\n"),
            (api, "GET /watch/x", "Accept: text/event-stream\r\n\r\n"),
            (api, "GET /events", "\r\n"),
            (admin, "GET /metrics", "\r\n"),
            (admin, "GET /", "\r\n"),
        ] {
            let mut wire = Wire::open(address).await;
            wire.send(format!(
                "{line} HTTP/1.1\r\n{host}\r\nConnection: close\r\n{rest}"
            ))
            .await;
            let answer = wire.answer().await;
            let refused: &[u16] = if address == admin {
                &[400, 403]
            } else {
                &[400, 421]
            };
            assert!(
                refused.contains(&answer.status),
                "{host}, {line}: {answer:?}"
            );
            assert!(
                answer
                    .headers
                    .keys()
                    .all(|name| !name.as_str().starts_with("access-control-")),
                "{answer:?}"
            );
        }
    }
    assert_eq!(calls(&gateway).await, (0, 0));
}

/// Paths at which programs tell too much about themselves, or do what they are asked to.
const USUAL_PATHS: &str = "
/.aws/credentials /.env /.env.local /.git/HEAD /.git/config /.htaccess /.htpasswd /.ssh/id_rsa /.well-known/security.txt
/_cat/indices /_cluster/health /_config /_debug /_ping /_profiler /_stats /_status /abort /about /account /action /actuator
/actuator/auditevents /actuator/beans /actuator/conditions /actuator/configprops /actuator/env /actuator/gateway/routes
/actuator/health /actuator/heapdump /actuator/httptrace /actuator/info /actuator/logfile /actuator/loggers
/actuator/mappings /actuator/metrics /actuator/prometheus /actuator/refresh /actuator/restart /actuator/scheduledtasks
/actuator/sessions /actuator/shutdown /actuator/threaddump /admin /admin/config /admin/env /admin/reload /admin/secrets
/admin/shutdown /api /api/config /api/secret /api/secrets /api/status /api/token /api/v1 /api/v1/admin /api/v1/secrets
/api/v1/status /api/v1/targets /auth /auth/token /backup /backup.sql /build /cache /certs /clusters /config /config.json
/config.toml /config.yaml /config/reload /config_dump /configz /connect /console /container /contention /core /cpuprofiler
/crash /credentials /data /db /debug /debug/allocs /debug/block /debug/config /debug/dump /debug/events /debug/fgprof
/debug/flags /debug/goroutine /debug/heap /debug/logging /debug/memory /debug/mutex /debug/pprof /debug/pprof/allocs
/debug/pprof/cmdline /debug/pprof/goroutine /debug/pprof/heap /debug/pprof/profile /debug/pprof/symbol /debug/pprof/trace
/debug/profile /debug/requests /debug/status /debug/threads /debug/trace /debug/vars /delete /deploy /diagnostics /drain
/drain_listeners /dump /dumps /echo /env /environ /environment /error /exec /export /fgprof /files /flags /flush /gc
/goroutines /graphql /hash /health /healthcheck/fail /healthcheck/ok /healthz /heap /heapdump /heapprofiler
/hot_restart_version /hystrix.stream /id_rsa /info /init /inspect /internal /internal/config /invoke /jmx /jolokia
/jolokia/list /key /keys /kill /latest/api/token /latest/meta-data /latest/user-data /listeners /log /loggers /logging /logs
/logz /manage /manage/env /manage/health /management /manager/html /master /memory /memory.hprof /merchant /metrics.json
/metricz /mounts /nginx_status /node /options /password /phpinfo.php /ping /pools /pprof /private /process /proc/self/environ
/profile /profiler /prometheus /proxy /quit /quitquitquit /ready /reboot /refresh /reload /reopen_logs /reset
/reset_counters /restart /rotate /rpc /run /runtime /runtime_modify /secret /secret_file /secrets /server-info /server-status
/server_info /servers /service /sessions /settings /setup /shell /shutdown /signal /stack /stats /stats/prometheus /stop
/store /support /swagger.json /sys /system /tap /threaddump /threads /threadz /token /tokens /trace /tracez /update /upgrade
/upload /v1/kv /v1/secret /v1/sys/health /v1/sys/raw /v1/sys/seal /v1/sys/seal-status /vars /varz /version /web.config
/webhook /wp-login.php /zpages /_sandbox/faults /_sandbox/calls /dev/api";

#[tokio::test]
async fn the_usual_paths_of_operators_lead_nowhere_on_either_port() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
    let paths: BTreeSet<_> = USUAL_PATHS.split_whitespace().collect();
    assert!(paths.len() >= 200, "{}", paths.len());
    for (address, of_post) in [(api, 404), (admin, 405)] {
        let mut wire = Wire::open(address).await;
        for path in &paths {
            for (method, status) in [
                ("GET", 404),
                ("POST", of_post),
                ("PUT", of_post),
                ("DELETE", of_post),
            ] {
                wire.send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                ))
                .await;
                let answer = wire.answer().await;
                assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            }
        }
    }
    assert_eq!(get_at(admin, "/readyz").await.status, 200);
    assert_eq!(calls(&gateway).await, (0, 0));
}

/// JSON values that every reader takes for the same.
const GOOD_JSON: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1e1",
    "1E+2",
    "0e-1",
    "123.456e78",
    "-123123123123123123123123123123",
    "0.1",
    "20e1",
    "\"\"",
    "\" \"",
    "\"\\u0060\\u012a\\u12AB\"",
    "\"\\uD801\\udc37\"",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0000\"",
    "\"\\\\u0000\"",
    "\"\\uDBFF\\uDFFF\"",
    "\"\u{7f}\"",
    "\"\u{2028}\u{2029}\"",
    "\"\u{10ffff}\"",
    "\"\u{fdd0}\"",
    "\"/*x*/\"",
    "\"a/*b*/c\"",
    "[]",
    "[ ]",
    "[[]   ]",
    "[\"\"]",
    "[null]",
    "[null, 1, \"1\", {}]",
    "[1\n]",
    " [1]",
    "[2] ",
    "true",
    "false",
    "null",
    "{}",
    "{\"\":0}",
    "{\"a\":[]}",
    "{\"a\":1,\"b\":1}",
    "{\"foo\\u0000bar\": 42}",
    "{\"a\":{\"a\":{\"a\":null}}}",
    "[1,\r\n\t2]",
];

/// What some reader somewhere takes for JSON, and another does not.
const BAD_JSON: &[&[u8]] = &[
    b"",
    b" ",
    b"[",
    b"]",
    b"[[",
    b"[]]",
    b"[1,]",
    b"[,1]",
    b"[1,,2]",
    b"[,]",
    b"[1 true]",
    b"[\"a\" \"b\"]",
    b"[x]",
    b"[1:2]",
    b"[3[4]]",
    b"[\"x\"",
    b"[\"x\"]]",
    b"[1,\n1\n,1",
    b"[\"\x0b\"\x0c]",
    b"[-]",
    b"[+1]",
    b"[++1]",
    b"[-01]",
    b"[01]",
    b"[012]",
    b"[1.]",
    b"[.1]",
    b"[-.1]",
    b"[0.e1]",
    b"[2.e3]",
    b"[1.2.3]",
    b"[0.1.2]",
    b"[1e]",
    b"[1e+]",
    b"[1ea]",
    b"[0e]",
    b"[0E+]",
    b"[1.0e-]",
    b"[1eE2]",
    b"[9.e+]",
    b"[- 1]",
    b"[1 000.0]",
    b"[1_000]",
    b"[0x1]",
    b"[0x42]",
    b"[0b1]",
    b"[0o7]",
    b"[1a]",
    b"[1+2]",
    b"[-a]",
    b"[NaN]",
    b"[-NaN]",
    b"[nan]",
    b"[Infinity]",
    b"[-Infinity]",
    b"[Inf]",
    b"[\xef\xbc\x91]",
    b"[1.8011670033376514H-308]",
    b"[-2.]",
    b"[nul]",
    b"[nulll]",
    b"[tru]",
    b"[truee]",
    b"[fals]",
    b"True",
    b"TRUE",
    b"NULL",
    b"None",
    b"undefined",
    b"{",
    b"}",
    b"{]",
    b"[}",
    b"{\"a\"}",
    b"{\"a\":}",
    b"{\"a\" 1}",
    b"{\"a\":1 \"b\":2}",
    b"{\"a\":1,}",
    b"{,\"a\":1}",
    b"{\"a\":1,,\"b\":2}",
    b"{:1}",
    b"{a:1}",
    b"{1:1}",
    b"{null:1}",
    b"{'a':1}",
    b"{\"a\":'1'}",
    b"{\"a\"::1}",
    b"{\"a\",1}",
    b"{\"a\":1}}",
    b"{\"a\":1}#",
    b"{\"a\":1}/**/",
    b"{\"a\":1}//",
    b"{/*x*/}",
    b"{\"a\":/*x*/1}",
    b"[1,2#]",
    b"{\"a\":1}\0",
    b"\0",
    b"{\"a\":\"b",
    b"{\"a",
    b"{{}}",
    b"{[]:1}",
    b"{\"a\":1,\"a\":1}",
    b"{\"a\":1,\"a\":2}",
    b"{\"a\":1,\"\\u0061\":2}",
    b"{\"x\":{\"a\":1,\"a\":1}}",
    b"[{\"a\":1,\"a\":1}]",
    b"\"",
    b"\"\\\"",
    b"\"\\\"]",
    b"\"\\a\"",
    b"\"\\x41\"",
    b"\"\\'\"",
    b"\"\\0\"",
    b"\"\\u\"",
    b"\"\\u1\"",
    b"\"\\u12\"",
    b"\"\\u123\"",
    b"\"\\u123g\"",
    b"\"\\u 041\"",
    b"\"\\U0041\"",
    b"\"\\uD800\"",
    b"\"\\uD800\\u\"",
    b"\"\\uD800\\u1\"",
    b"\"\\uD800\\u1234\"",
    b"\"\\uD800\\uD800\"",
    b"\"\\uDC00\"",
    b"\"\\uDC00\\uD800\"",
    b"\"\\uD83D\"",
    b"\"a\nb\"",
    b"\"a\tb\"",
    b"\"a\0b\"",
    b"\"a\x1fb\"",
    b"\"a\\\nb\"",
    b"\"a\" \"b\"",
    b"'a'",
    b"`a`",
    b"\"\xff\"",
    b"\"\xfe\"",
    b"\"\x80\"",
    b"\"\xbf\"",
    b"\"\xc0\xaf\"",
    b"\"\xc1\xbf\"",
    b"\"\xc3\"",
    b"\"\xc3\x28\"",
    b"\"\xe0\x80\xaf\"",
    b"\"\xe2\x82\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xed\xbf\xbf\"",
    b"\"\xed\xa0\x81\xed\xb0\x80\"",
    b"\"\xf0\x80\x80\xaf\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xf8\x88\x80\x80\x80\"",
    b"\"\xfc\x84\x80\x80\x80\x80\"",
    b"\"\xe9\"",
    b"\xef\xbb\xbf{}",
    b"\xef\xbb",
    b"\xe2\x81\xa0[]",
    b"\xc2\xa0[]",
    b"\xc2\x85{}",
    b"\x0c[]",
    b"\x0b[]",
    b"[\xc2\xa01]",
    b"\xff\xfe{\0}\0",
    b"\xfe\xff\0{\0}",
    b"{\0}\0",
    b"<json/>",
    b"a",
    b"*",
    b"#",
    b"$",
    b"=1",
    b"{\"a\":1}{\"a\":2}",
    b"{} {}",
    b"{}\n{}",
    b"[]\x1e[]",
    b"\x1e{}",
    b"1 2",
    b"{\"a\":\"\\uD800\"}",
    b"{\"\\uD800\":1}",
    b"@",
    b"\\u007b\\u007d",
];

#[tokio::test]
async fn json_that_two_readers_could_read_in_two_ways_is_none() {
    assert!(GOOD_JSON.len() + BAD_JSON.len() > 200);
    let sidecar = Sidecar::with(&[
        ("start.forward_fields", "[\"order\"]"),
        ("start.burst", "1000"),
    ]);
    let around = |value: &[u8]| [b"{\"amount\":1000,\"order\":", value, b"}"].concat();
    let mut wrong = Vec::new();
    for bad in BAD_JSON {
        for body in [bad.to_vec(), around(bad)] {
            let answer = sidecar.api(post("/api/start_payment", body.clone())).await;
            if (answer.status, answer.text("error")) != (400, "invalid_json") {
                wrong.push(format!("{}: {answer:?}", String::from_utf8_lossy(&body)));
            }
        }
    }
    assert_eq!(sidecar.gateway_starts(), 0);
    for good in GOOD_JSON {
        let answer = sidecar
            .api(post("/api/start_payment", around(good.as_bytes())))
            .await;
        if answer.status != 200 {
            wrong.push(format!("{good}: {answer:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // The values by themselves are JSON too, and yet no start.
    for good in GOOD_JSON {
        let answer = sidecar
            .api(post("/api/start_payment", good.to_owned()))
            .await;
        assert!([400, 422].contains(&answer.status), "{good}: {answer:?}");
    }
}

#[tokio::test]
async fn ten_thousand_odd_requests_leave_nothing_behind() {
    const REQUESTS: u32 = 10_000;
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let [api, admin] =
        [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    // Lines of the log that nobody reads would take memory, too.
    let settings = [
        ("listen.address", &*api.to_string()),
        ("admin.address", &admin.to_string()),
        ("log.level", "error"),
        ("watch.poll_rate", "10000"),
        ("watch.max_tracked", "1000"),
    ];
    let sidecar = Program::launch(&[], &gateway, &settings);
    until("a listener", async || {
        tokio::net::TcpStream::connect(admin).await.ok()
    })
    .await;
    let series = async || -> BTreeSet<String> {
        let metrics = get_at(admin, "/metrics").await.body;
        metrics
            .lines()
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect()
    };
    let odd = |i: u32| {
        // Numbers that jump about: no two requests share a label.
        let n = i.wrapping_mul(2_654_435_761);
        match i % 4 {
            0 => format!(
                "GET /watch/code-{n} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: agent-{n}\r\n\r\n"
            ),
            1 => format!(
                "M{n} /path-{n}?query={n} HTTP/1.1\r\nHost: localhost\r\nX-{n}: {n}\r\n\r\n"
            ),
            2 => {
                format!("GET /watch/{n} HTTP/1.1\r\nHost: host-{n}\r\nX-Request-Id: id-{n}\r\n\r\n")
            }
            _ => format!(
                "POST /api/start_payment?{n} HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/{n}\r\n\r\n"
            ),
        }
    };
    let ask = async |range: std::ops::Range<u32>| {
        let mut stream = Wire::open(api).await.into_stream();
        let requests: String = range.clone().map(odd).collect();
        let (mut read, mut write) = stream.split();
        let mut received = Vec::new();
        let ask = async {
            write.write_all(requests.as_bytes()).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (_, ended) = tokio::join!(ask, read.read_to_end(&mut received));
        ended.unwrap();
        let answers = Answer::all(&received).unwrap();
        assert_eq!(answers.len(), range.len());
        assert!(
            answers
                .iter()
                .all(|answer| (400..500).contains(&answer.status)),
            "all of them are refused"
        );
    };
    // Whatever there is to be seen has been seen once, and what a connection costs has been paid.
    for i in 0..20 {
        ask(i * 100..(i + 1) * 100).await;
    }
    let (before, memory) = (series().await, sidecar.memory());
    for i in 20..REQUESTS / 100 {
        ask(i * 100..(i + 1) * 100).await;
    }
    assert_eq!(series().await, before, "new series");
    let grown = sidecar.memory().saturating_sub(memory);
    assert!(grown < 10 << 20, "{grown} bytes of memory more");
}

/// Of an answer of a gateway that means harm, and of requests likewise.
const FORGERY: &str = "\\u001b[2J\\n{\\\"level\\\":\\\"forged\\\"}\\r\\u0000\\u007f\\u0085\\u2028";

#[tokio::test]
async fn nobody_outside_writes_a_line_of_the_log() {
    let statuses = [
        "400 Bad",
        "401 No",
        "500 Oh",
        "200 OK",
        "429 Busy",
        "302 There",
        "404 Not",
    ];
    let gateway = Gateway::new(move |number, _| {
        let status = statuses[number % statuses.len()];
        let body = format!(
            r#"{{"message":"{FORGERY}","status":"{FORGERY}","amount":1,"code":"{FORGERY}","{FORGERY}":"{FORGERY}"}}"#
        );
        let head =
            format!("HTTP/1.1 {status}\r\nLocation: http://x/\x1b[2J\r\nRetry-After: \x1b[2J");
        let answer = format!(
            "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Act::SayAndEnd(answer.into())
    })
    .await;
    for format in ["json", "text"] {
        let settings = [
            ("log.format", format),
            ("log.level", "debug"),
            ("gateway.retries", "0"),
        ];
        let mut sidecar = Program::launch(&[], &gateway.url(), &settings);
        sidecar.log_line("tillgate is running").await;
        let (api, admin) = addresses_in(sidecar.log.last().unwrap());
        let escapes: &[u8] = b"\x1b[2J\x1b]0;x\x07";
        let post = b"POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        for address in [api, admin] {
            for target in [
                "/watch/%1b%5b2J%0a{}",
                "/watch/\u{85}",
                "/nowhere?\x1b[2J",
                "/\"}\\n{\"level\":\"forged\"}",
            ] {
                let _ = sockets::exchange(
                    address,
                    format!(
                        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                    )
                    .into(),
                )
                .await;
            }
            for name in [
                "X-Request-Id",
                "User-Agent",
                "Authorization",
                "Idempotency-Key",
                "Origin",
                "Via",
                "Accept",
                "If-None-Match",
                "Last-Event-ID",
                "X-A\x1b[2J",
            ] {
                for value in [
                    escapes,
                    b"\"}\\n{\"level\":\"forged\"}",
                    b"\xc2\x85\xe2\x80\xa8\xff\xfe",
                ] {
                    let head = [
                        b"GET /watch/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
                        name.as_bytes(),
                        b": ",
                        value,
                    ]
                    .concat();
                    let _ = sockets::exchange(address, [&head[..], b"\r\n\r\n"].concat()).await;
                }
            }
            for i in 0..8 {
                let id = format!("X-Request-Id: forged-{i}\r\nConnection: close\r\n");
                let body = format!(
                    r#"{{"amount":1000{}}}"#,
                    [
                        "",
                        &format!(r#","redirect":"{FORGERY}""#),
                        &format!(r#","{FORGERY}":1"#)
                    ][i % 3]
                );
                let request = [
                    post,
                    id.as_bytes(),
                    format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
                ]
                .concat();
                let _ = sockets::exchange(address, request).await;
            }
            for i in 0..8 {
                let _ = get_at(address, &format!("/watch/code-{i}")).await;
            }
        }
        sidecar.signal("TERM");
        let first = sidecar.log.clone();
        let (code, _, rest) = sidecar.end().await;
        assert_eq!(code, 0);
        let log = first
            .iter()
            .map(String::as_str)
            .chain(rest.split_terminator('\n'));
        let mut lines = 0;
        for line in log {
            lines += 1;
            assert!(!line.chars().any(char::is_control), "{format}: {line:?}");
            if format == "json" {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(
                    ["DEBUG", "INFO", "WARN", "ERROR"].contains(&line["level"].as_str().unwrap()),
                    "{line}"
                );
            } else {
                let is_line = ["DEBUG", "INFO", "WARN", "ERROR"]
                    .iter()
                    .any(|level| line.contains(level));
                assert!(
                    is_line && line.starts_with(|c: char| c.is_ascii_digit()),
                    "{line:?}"
                );
            }
        }
        assert!(lines > 60, "the requests are in there: {lines}");
    }
}

/// API and admin listener, as a line of either format tells them.
fn addresses_in(line: &str) -> (SocketAddr, SocketAddr) {
    let address = |name: &str| {
        let (_, rest) = line
            .split_once(name)
            .unwrap_or_else(|| panic!("no {name}: {line}"));
        let start = rest.find(|c: char| c.is_ascii_digit()).unwrap();
        let rest = &rest[start..];
        rest[..rest
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')
            .unwrap_or(rest.len())]
            .parse()
            .unwrap()
    };
    (address("listen"), address("admin"))
}

#[tokio::test]
async fn two_hundred_bad_files_end_nothing_and_take_nothings_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (secret, tokens) = (path("secret"), path("tokens"));
    std::fs::write(&secret, tillgate::sandbox::DEFAULT_SECRET).unwrap();
    std::fs::write(&tokens, "a-good-token\n").unwrap();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [
        ("merchant.secret_file", secret.to_str().unwrap()),
        ("listen.token_file", tokens.to_str().unwrap()),
        ("start.burst", "1000"),
    ];
    let (mut sidecar, api, admin) = Program::sidecar(&gateway, &settings).await;
    let bearer = [
        ("authorization", "Bearer a-good-token"),
        ("content-type", "application/json"),
    ];
    for i in 0..200_usize {
        let filler = "x".repeat(i * 37 % 5000);
        let bad: Vec<u8> = match i % 8 {
            0 => Vec::new(),
            1 => format!("with a space {filler}").into(),
            2 => [filler.as_bytes(), &[0xff, 0xfe, i as u8 | 0x80]].concat(),
            3 => format!("\0{filler}").into(),
            4 => format!("two-lines\u{7}\n{filler}\t\n").into(),
            5 => vec![b' '; 1 + i],
            6 => "\u{85}".repeat(1 + i).into(),
            _ => vec![b'\n'; 1 + i],
        };
        std::fs::write(&secret, &bad).unwrap();
        std::fs::write(&tokens, &bad).unwrap();
        if i % 16 == 0 {
            std::fs::remove_file(&secret).unwrap();
            std::fs::create_dir(&secret).unwrap();
        }
        sidecar.signal("HUP");
        sidecar.log_line("reading the files again").await;
        if i % 10 == 0 {
            let answer = call(api, Method::POST, "/api/start_payment", &bearer, ORDER).await;
            assert_eq!(answer.status, 200, "{i}: {answer:?}");
        }
        if i % 16 == 0 {
            std::fs::remove_dir(&secret).unwrap();
        }
    }
    for name in ["secret", "token"] {
        let failures = format!("tillgate_{name}_reload_failures_total");
        assert!(
            metric_at(admin, &failures).await > 0,
            "what is bad is counted: {name}"
        );
    }
    assert_eq!(get_at(admin, "/readyz").await.status, 200);
    // And what is good again is taken.
    std::fs::write(&tokens, "another-token\n").unwrap();
    sidecar.signal("HUP");
    let another = [("authorization", "Bearer another-token")];
    until("the new token", async || {
        (call(api, Method::GET, "/watch/x", &another, "")
            .await
            .status
            != 401)
            .then_some(())
    })
    .await;
}
