//! A store in a database, as far as the configuration goes.

use super::*;

const URL: &str = "postgres://tillgate@db.internal,db2.internal:5433/shop?schema=pay";
/// A password, as it must never be shown.
const PASSWORD: &str = "Xyzzy0815";

#[tokio::test]
async fn what_is_wrong_with_a_database_is_said_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good", &format!("{PASSWORD}\n"));
    let (empty, lines) = (file("empty", ""), file("lines", "one\ntwo\n"));
    let missing = directory.path().join("missing");
    let missing = missing.to_str().unwrap();
    let both = format!("postgres://tillgate:{PASSWORD}@db.internal/shop");
    let unencoded = format!("postgres://tillgate:{PASSWORD}/@db.internal/shop");
    let other = format!("mysql://tillgate:{PASSWORD}@db.internal/shop");
    let tls = format!("{both}?sslmode=require");
    let in_query = format!("postgres://tillgate@db.internal/shop?password={PASSWORD}");
    let unknown = "Xyzzy0815Xyzzy0815Xyzzy0815";
    for (settings, key, words) in [
        (
            &[("store.url", other.as_str())][..],
            "store.url",
            &["mysql", "memory:", "file:", "postgres:"][..],
        ),
        (
            &[("store.url", &unencoded)],
            "store.url",
            &["percent-encoded", "store.password_file"],
        ),
        (
            &[("store.url", &tls)],
            "store.url",
            &["sslmode", "TLS is always"],
        ),
        (&[("store.url", &in_query)], "store.url", &["password"]),
        (
            &[("store.url", &both), ("store.password_file", &good)],
            "store.password_file",
            &["store.url too"],
        ),
        (
            &[("store.url", URL), ("store.password_file", &empty)],
            "store.password_file",
            &["empty"],
        ),
        (
            &[("store.url", URL), ("store.password_file", &lines)],
            "store.password_file",
            &["more than one line"],
        ),
        (
            &[("store.url", URL), ("store.password_file", unknown)],
            "store.password_file",
            &["could be the password"],
        ),
        (
            &[("store.url", URL), ("store.ca_file", missing)],
            "store.ca_file",
            &["missing"],
        ),
        (
            &[("store.url", URL), ("store.ca_file", &good)],
            "store.ca_file",
            &["PEM"],
        ),
        (
            &[("store.url", URL), ("store.timeout", "0s")],
            "store.timeout",
            &["1ms"],
        ),
        (
            &[("store.password_file", good.as_str())],
            "store.password_file",
            &["store.url names none", "postgres://"],
        ),
        (
            &[("store.ca_file", good.as_str())],
            "store.ca_file",
            &["store.url names none"],
        ),
        (
            &[("store.allow_plain_tcp", "true")],
            "store.allow_plain_tcp",
            &["store.url names none"],
        ),
        (
            &[("store.timeout", "3s"), ("store.url", "file:/x")],
            "store.timeout",
            &["store.url names none"],
        ),
    ] {
        let (code, said) = check_with(settings).await;
        assert_eq!(code, 2, "{settings:?}: {said}");
        says(&said, &[&format!("error: {key}: ")]);
        says(&said, words);
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        assert!(!said.contains("Xyzzy"), "{said}");
    }
    // The defaults may stand there, as in the annotated example.
    let (code, said) =
        check_with(&[("store.timeout", "2s"), ("store.allow_plain_tcp", "false")]).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn check_says_what_a_store_in_a_database_means() {
    let (code, said) = check_with(&[("store.url", URL)]).await;
    assert_eq!(code, 0, "{said}");
    says(
        &said,
        &[
            &format!("url = \"{URL}\""),
            "db.internal,db2.internal:5433, schema pay, with TLS and the built-in roots",
            "starts stop while it is away; watches go on",
            "there is no password",
        ],
    );
    assert!(
        !said.contains("warning: store") && !said.contains("a restart forgets"),
        "{said}"
    );

    let url = format!("postgresql://tillgate:{PASSWORD}@db.internal/shop");
    let (code, said) = check_with(&[("store.url", &url), ("store.allow_plain_tcp", "true")]).await;
    assert_eq!(code, 0, "{said}");
    says(
        &said,
        &[
            "url = \"postgres://tillgate:[redacted]@db.internal/shop\"",
            "warning: store.allow_plain_tcp",
            "note: a password in store.url",
        ],
    );
    assert!(!said.contains(PASSWORD), "{said}");

    let local = "postgres://tillgate@%2Frun%2Fpostgresql/shop";
    let (code, said) = check_with(&[
        ("store.url", local),
        ("store.allow_plain_tcp", "true"),
        ("store.password_file", "/nowhere/password"),
    ])
    .await;
    assert_eq!(code, 0, "{said}");
    says(
        &said,
        &[
            "without TLS",
            "/nowhere/password is missing",
            "starts unready",
        ],
    );
    assert!(!said.contains("warning: store"), "{said}");
}

#[tokio::test]
async fn a_file_with_a_password_that_everyone_can_open_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let url = format!("postgres://tillgate:{PASSWORD}@db.internal/shop");
    let text = format!("[gateway]\nurl = \"{NOBODY}\"\n[store]\nurl = \"{url}\"\n");
    let (directory, path) = config(&text);
    let secret = directory.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let secret_file = secret.to_str().unwrap();
    for file in [Path::new(&path), &secret] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o640)).unwrap();
    }
    let settings = [("merchant.secret_file", secret_file)];
    let warnings = async |settings: &[(&str, &str)]| {
        let (_, out, _) = run(&["check", "--config", &path], settings).await;
        out.matches("warning: ").count()
    };
    assert_eq!(warnings(&settings).await, 0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(warnings(&settings).await, 1, "it has the password");

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let merchant = directory.path().join("merchant");
    fs::write(&merchant, SECRET).unwrap();
    fs::set_permissions(&merchant, fs::Permissions::from_mode(0o640)).unwrap();
    let other = [
        ("merchant.secret_file", merchant.to_str().unwrap()),
        ("store.url", URL),
        ("store.password_file", secret_file),
    ];
    assert_eq!(warnings(&other).await, 1, "the file of the password");
}

#[tokio::test]
async fn a_database_that_is_away_is_named_by_check_online() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_claimed, closed) = closed_port();
    let address = closed.trim_start_matches("http://");
    let url = format!("postgres://tillgate:{PASSWORD}@{address}/shop");
    let settings = [
        ("gateway.url", gateway.as_str()),
        ("merchant.secret", DEFAULT_SECRET),
        ("store.url", &url),
    ];
    let (code, out, err) = run(&["check", "--online"], &settings).await;
    assert_eq!(code, 1, "{out}{err}");
    says(&err, &["store.url", address, "refused"]);
    assert!(!(out + &err).contains(PASSWORD));
}

#[tokio::test]
async fn store_schema_prints_the_sql_for_the_schema_of_the_configuration() {
    let (code, out, err) = run(&["store", "schema"], &[]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    says(
        &out,
        &["create schema \"tillgate\"", "\"tillgate\".log", "grant "],
    );
    assert!(!out.contains("{schema}"));
    let of_file = run(&["store", "schema"], &[("store.url", "file:/x")]).await;
    assert_eq!(of_file, (0, out.clone(), String::new()));

    // Faults elsewhere do not matter: whoever runs it may have no secret.
    let text = format!("[gateway]\nurl = \"nonsense\"\n[store]\nurl = \"{URL}\"\n");
    let (_directory, path) = config(&text);
    let (code, of_config, err) = run(&["store", "schema", "--config", &path], &[]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let named = out.replace("\"tillgate\"", "\"pay\"");
    assert_eq!(of_config, named.replace("'tillgate'", "'pay'"));

    let url = format!("postgres://tillgate:{PASSWORD}@db.internal/shop?schema=A");
    let (code, out, err) = run(&["store", "schema"], &[("store.url", &url)]).await;
    assert_eq!((code, out.as_str()), (2, ""));
    says(&err, &["store.url", "name of a schema"]);
    assert!(!err.contains(PASSWORD), "{err}");
}
