use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::store::Place;

fn parsed(text: &str) -> DatabaseUrl {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn it_is_read_as_libpq_writes_it() {
    let url = parsed(
        "postgresql://till%20gate:p%40ss%2Fxyzzy@h1,[::1]:5433,h3.:5434/shop%2F1?schema=a_1&application_name=my%20app",
    );
    assert_eq!(
        (url.user(), url.database.as_str(), url.schema()),
        ("till gate", "shop/1", "a_1")
    );
    assert_eq!(url.application_name, "my app");
    assert_eq!(url.password.as_ref().unwrap().expose_secret(), "p@ss/xyzzy");
    assert_eq!(url.place(), "h1,[::1]:5433,h3.:5434");
    assert_eq!(
        url.to_string(),
        "postgres://till%20gate:[redacted]@h1,[::1]:5433,h3.:5434/shop%2F1?schema=a_1&application_name=my%20app"
    );
    assert!(!format!("{url:?}").contains("xyzzy"));

    let plain = parsed("postgres://u@db/d");
    assert_eq!(
        (plain.schema(), plain.application_name.as_str()),
        ("tillgate", "tillgate")
    );
    assert_eq!(plain.to_string(), "postgres://u@db/d");
    assert!(!plain.has_password() && !parsed("postgres://u:@db/d").has_password());
}

#[test]
fn a_unix_socket_has_both_of_libpqs_forms() {
    for text in [
        "postgres://u@%2Frun%2Fpostgresql:5433/d",
        "postgres://u@/d?host=/run/postgresql&port=5433",
        "postgres://u@/d?port=5433&host=%2Frun%2Fpostgresql",
    ] {
        let url = parsed(text);
        assert_eq!(url.place(), "/run/postgresql:5433", "{text}");
        assert_eq!(url.to_string(), "postgres://u@%2Frun%2Fpostgresql:5433/d");
        assert!(url.is_local());
    }
}

#[test]
fn only_this_machine_is_local() {
    for host in ["localhost", "LocalHost.", "127.0.0.1", "127.1.2.3", "[::1]"] {
        assert!(
            parsed(&format!("postgres://u@{host}/d")).is_local(),
            "{host}"
        );
    }
    // The last two lead here, and nothing is won by taking their word for it.
    for host in [
        "db",
        "localhost,db",
        "localhost.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ] {
        assert!(
            !parsed(&format!("postgres://u@{host}/d")).is_local(),
            "{host}"
        );
    }
}

#[test]
fn what_is_wrong_is_said_by_name() {
    for (text, words) in [
        ("postgres:u@db/d", "write it postgres://"),
        ("postgres://db/d", "names no user"),
        ("postgres://@db/d", "names no user"),
        ("postgres://u@db", "names no database"),
        ("postgres://u@db/", "names no database"),
        ("postgres://u@/d", "names no host"),
        ("postgres://u@db,/d", "names no host"),
        ("postgres://u@db:0/d", "no port"),
        ("postgres://u@db:70000/d", "no port"),
        ("postgres://u@::1/d", "[IPV6]:PORT"),
        ("postgres://u@[db]/d", "no host"),
        ("postgres://u@[::1]x/d", "no host"),
        ("postgres://u@d b/d", "no host"),
        ("postgres://u@db/d?sslmode=disable", "always verified"),
        ("postgres://u@db/d?sslrootcert=x", "store.ca_file"),
        ("postgres://u@db/d?connect_timeout=1", "store.timeout"),
        ("postgres://u@db/d?options=x", "\"options\""),
        ("postgres://u@db/d?options=x", "schema and application_name"),
        (
            "postgres://u@db/d?password=hunter22",
            "write password before",
        ),
        ("postgres://u@db/d?schema=Shop", "no name of a schema"),
        ("postgres://u@db/d?schema=pg_shop", "no name of a schema"),
        ("postgres://u@db/d?schema=", "no name of a schema"),
        ("postgres://u@db/d?schema=a&schema=b", "twice"),
        ("postgres://u@db/d?application_name=", "printable ASCII"),
        ("postgres://u@db/d?host=/run", "host parameter too"),
        ("postgres://u@db/d?port=1", "HOST:PORT"),
        ("postgres://u@/d?host=db", "behind the @"),
        ("postgres://u:100%@db/d", "percent-encoded"),
        ("postgres://u:a/b@db/d", "percent-encoded"),
        ("postgres://u:a@b@db/d", "percent-encoded"),
        ("postgres://u:%00@db/d", "percent-encoded"),
        ("postgres://u:%ff@db/d", "percent-encoded"),
    ] {
        let what = text.parse::<DatabaseUrl>().unwrap_err();
        assert!(what.contains(words), "{text}: {what}");
        assert!(!what.contains("hunter22"), "{what}");
    }
}

#[test]
fn other_kinds_of_store_are_refused_by_name() {
    for kind in ["mysql", "redis", "sqlite", "nats", "Postgres"] {
        let what = format!("{kind}://u:hunter22@db/d")
            .parse::<Place>()
            .unwrap_err();
        for word in [kind, "memory:", "file:", "postgres:"] {
            assert!(what.contains(word), "{what}");
        }
        assert!(!what.contains("hunter22"), "{what}");
    }
    // Without a scheme all of it may be a password.
    for text in ["hunter22 of the house", "hunter2/hunter2:x"] {
        let what = text.parse::<Place>().unwrap_err();
        assert!(!what.contains("hunter"), "{what}");
    }
}

/// A word that no text of ours has.
const MARK: &str = "xyzzy";

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(postgres://|postgresql://)?[ -~é\u{0}]{0,60}") {
        if let Ok(place) = text.parse::<Place>() {
            prop_assert!(!place.to_string().is_empty());
        }
    }

    #[test]
    fn a_url_without_a_password_survives_a_round_trip(
        user in "[ -~é]{1,20}",
        database in "[ -~é]{1,20}",
        hosts in prop::collection::vec("[a-z][a-z0-9]{0,9}(\\.[a-z]{2,5})?(:[1-9][0-9]{0,3})?|\\[::1\\]|%2Frun%2F[a-z %@,:]{1,5}", 1..4),
        schema in prop::option::of("[a-oq-z_][a-z0-9_]{0,20}"),
    ) {
        let hosts: Vec<_> = hosts
            .iter()
            .map(|host| match host.strip_prefix("%2Frun%2F") {
                Some(directory) => format!("%2Frun%2F{}", encoded(directory)),
                None => host.clone(),
            })
            .collect();
        let query = schema.map_or_else(String::new, |schema| format!("?schema={schema}"));
        let text = format!("postgres://{}@{}/{}{query}", encoded(&user), hosts.join(","), encoded(&database));
        let url = parsed(&text);
        prop_assert_eq!(&url.user, &user);
        prop_assert_eq!(&url.database, &database);
        let again = parsed(&url.to_string());
        prop_assert_eq!(format!("{url:?}"), format!("{again:?}"));
        prop_assert_eq!(url.to_string(), again.to_string());
    }

    /// Whatever is forgotten or not encoded, the password is not shown.
    #[test]
    fn no_text_of_it_has_the_password(
        before in "[ -~]{0,6}",
        after in "[ -~]{0,6}",
        is_encoded in any::<bool>(),
        rest in prop::sample::select(vec!["@db/d", "@db:x/d", "@d b/d", "@db/d?x=1", "@db/d?sslmode=x", "@db", "/d", ""]),
    ) {
        let password = format!("{before}{MARK}{after}");
        let written = if is_encoded { encoded(&password).to_string() } else { password.clone() };
        // An @ in a password whose host was forgotten makes a host of what follows.
        prop_assume!(is_encoded || rest.starts_with('@') || !password.contains('@'));
        match format!("postgres://u:{written}{rest}").parse::<Place>() {
            Ok(place) => {
                prop_assert!(!place.to_string().contains(MARK), "{place}");
                prop_assert!(!format!("{place:?}").contains(MARK), "{place:?}");
            }
            Err(what) => prop_assert!(!what.contains(MARK), "{what}"),
        }
    }

    #[test]
    fn a_password_that_is_encoded_is_read_whole(password in "[ -~é]{1,30}") {
        let url = parsed(&format!("postgres://u:{}@db/d", encoded(&password)));
        prop_assert_eq!(url.password.as_ref().unwrap().expose_secret(), password);
    }
}
