//! The tools of these tests do what they say.

use hyper::Method;
use tillgate::sandbox::DEFAULT_SECRET;

use super::gateway::Gateway;
use super::pool::{PgBouncer, has_pgbouncer};
use super::postgres::{Options, PASSWORD, Postgres, USER, has_postgres, has_small_disks};
use super::proxy::{Fate, Proxy, Way};
use super::replica::{Replica, TOKEN};
use super::{in_time, until};

const COUNT: &str = "select count(*) from kept";

/// A server with a table.
async fn with_table(options: Options) -> Postgres {
    let server = Postgres::with(options).await;
    server
        .query("create table kept (number int); insert into kept values (1)")
        .await;
    server
}

#[tokio::test]
async fn a_server_keeps_what_was_committed_however_it_ends() {
    if !has_postgres() {
        return;
    }
    let server = with_table(Options::default()).await;
    server
        .query("create unlogged table forgotten (number int); insert into forgotten values (1)")
        .await;
    server.stop().await;
    server.start().await;
    let forgotten = "select count(*) from forgotten";
    assert_eq!(server.query_one(COUNT).await, "1");
    assert_eq!(server.query_one(forgotten).await, "1");
    server.kill().await;
    server.start().await;
    assert_eq!(server.query_one(COUNT).await, "1");
    assert_eq!(server.query_one(forgotten).await, "0");
    server.stop_immediately().await;
    server.start().await;
    server.query("insert into forgotten values (1)").await;
    server.crash().await;
    assert_eq!(server.query_one(COUNT).await, "1");
    assert_eq!(server.query_one(forgotten).await, "0");
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_goes_on() {
    if !has_postgres() {
        return;
    }
    let server = with_table(Options::default()).await;
    let client = server.connect(USER).await;
    server.pause();
    let mut query = Box::pin(client.query_one(COUNT, &[]));
    let waits = tokio::time::timeout(std::time::Duration::from_millis(300), &mut query).await;
    assert!(waits.is_err());
    server.resume();
    let row = query.await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_parameter_changes_at_run_time() {
    if !has_postgres() {
        return;
    }
    let server = with_table(Options::default().parameter("max_connections", "11")).await;
    assert_eq!(server.query_one("show max_connections").await, "11");
    server.set("default_transaction_read_only", "on").await;
    server.set("default_transaction_read_only", "off").await;
    server.set("synchronous_standby_names", "nobody").await;
    assert_eq!(server.connections().await, 0);
}

#[tokio::test]
async fn a_connection_over_tcp_needs_the_password() {
    if !has_postgres() {
        return;
    }
    let server = Postgres::new().await;
    let connect = async |password: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(server.port).user(USER);
        config.password(password).dbname(USER);
        config.connect(tokio_postgres::NoTls).await
    };
    let (client, connection) = connect(PASSWORD).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(server.connections().await, 1);
    assert_eq!(server.terminate_all().await, 1);
    until("the end of the connection", async || {
        client.is_closed().then_some(())
    })
    .await;
    assert!(connect("another").await.is_err());
}

#[tokio::test]
async fn a_standby_has_what_its_primary_committed_and_is_promoted() {
    if !has_postgres() {
        return;
    }
    let primary = with_table(Options::default()).await;
    let standby = primary.standby().await;
    primary.make_synchronous().await;
    let client = primary.connect(USER).await;
    let durable = "set synchronous_commit = 'on'; insert into kept values (2)";
    client.batch_execute(durable).await.unwrap();
    primary.kill().await;
    standby.promote().await;
    assert_eq!(standby.query_one(COUNT).await, "2");
    standby.query("insert into kept values (3)").await;
}

#[tokio::test]
async fn a_standby_that_is_cut_off_does_not_hear_the_last_commits() {
    if !has_postgres() {
        return;
    }
    let primary = with_table(Options::default()).await;
    let standby = primary.standby().await;
    standby.detach().await;
    primary.query("insert into kept values (2)").await;
    primary.kill().await;
    standby.promote().await;
    assert_eq!(standby.query_one(COUNT).await, "1");
}

#[tokio::test]
async fn a_small_disk_is_full_until_there_is_room_again() {
    if !has_postgres() || !has_small_disks() {
        return;
    }
    let options = Options {
        small_disk: Some(64),
        ..Options::default()
    };
    let server = with_table(options).await;
    let full = server.fill();
    let client = server.connect(USER).await;
    let many = "insert into kept select generate_series(1, 100000)";
    let refused = client.batch_execute(many).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "53100");
    drop(full);
    client.batch_execute(many).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_log_finds_no_room_ends_and_goes_on_when_there_is_some() {
    if !has_postgres() || !has_small_disks() {
        return;
    }
    let options = Options {
        small_log_disk: Some(24),
        ..Options::default()
    };
    let server = with_table(options).await;
    let full = server.fill();
    let (client, witness) = (server.connect(USER).await, server.connect(USER).await);
    let many = "insert into kept select generate_series(1, 1000000)";
    client.batch_execute(many).await.unwrap_err();
    until("the others are cut off", async || {
        witness.is_closed().then_some(())
    })
    .await;
    drop(full);
    if !server.answers_or_ended().await {
        server.start().await;
    }
    assert_eq!(server.query_one(COUNT).await, "1");
}

/// A client of the sidecars' role through this proxy.
async fn through(proxy: &Proxy) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(proxy.address.port());
    config.user(USER).password(PASSWORD).dbname(USER);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Writes this number as a sidecar does: without a statement that has a name.
async fn write(
    client: &tokio_postgres::Client,
    number: i32,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let insert = "insert into \"tillgate\".kept values ($1) returning number";
    let parameter: (&(dyn tokio_postgres::types::ToSql + Sync), _) =
        (&number, tokio_postgres::types::Type::INT4);
    client.query_typed(insert, &[parameter]).await
}

/// A server with a table of the sidecars' role, and a proxy before it.
async fn proxied() -> (Postgres, Proxy) {
    let server = Postgres::new().await;
    server
        .query(&format!(
            "create schema tillgate authorization {USER}; create table tillgate.kept (number int); \
             alter table tillgate.kept owner to {USER}"
        ))
        .await;
    let proxy = Proxy::to(server.address()).await;
    (server, proxy)
}

const KEPT: &str = "select count(*) from tillgate.kept";

fn is_write(request: &str) -> bool {
    request.contains("insert into tillgate.kept")
}

#[tokio::test]
async fn a_proxy_passes_everything_on_until_it_is_cut() {
    if !has_postgres() {
        return;
    }
    let (server, proxy) = proxied().await;
    let client = through(&proxy).await.unwrap();
    // Many at once over one connection.
    let writes = (0..50).map(|number| write(&client, number));
    let written = futures_util::future::join_all(writes).await;
    assert!(written.iter().all(|rows| rows.as_ref().unwrap().len() == 1));
    proxy.cut();
    assert!(write(&client, 1).await.is_err());
    let client = through(&proxy).await.unwrap();
    proxy.set(Way::Closed);
    write(&client, 1).await.unwrap();
    assert!(through(&proxy).await.is_err());
    proxy.close();
    assert!(write(&client, 1).await.is_err());
    proxy.open();
    write(&through(&proxy).await.unwrap(), 1).await.unwrap();
    assert_eq!(server.query_one(KEPT).await, "52");
    assert_eq!(proxy.accepted(), 4);
}

#[tokio::test]
async fn a_proxy_loses_the_answer_of_one_request_and_no_other() {
    if !has_postgres() {
        return;
    }
    let (server, proxy) = proxied().await;
    let client = through(&proxy).await.unwrap();
    let sprung = proxy.trap_nth(2, Fate::AnswerIsLost, Way::Closed, is_write);
    let writes = (0..5).map(|number| write(&client, number));
    let written = futures_util::future::join_all(writes).await;
    sprung.wait().await;
    // The cut may take those with it that were on their way.
    let heard: Vec<_> = written.iter().map(Result::is_ok).collect();
    assert!(heard[0] && heard[2..] == [false; 3], "{heard:?}");
    assert!(through(&proxy).await.is_err());
    // The later ones were on their way already, or were not.
    let kept = server.query_one("select count(*) from tillgate.kept where number < 3");
    assert_eq!(kept.await, "3");
}

#[tokio::test]
async fn a_proxy_loses_a_request_before_the_server_sees_it() {
    if !has_postgres() {
        return;
    }
    let (server, proxy) = proxied().await;
    let client = through(&proxy).await.unwrap();
    let sprung = proxy.trap(Fate::IsLost, Way::Open, is_write);
    client.simple_query("select 1").await.unwrap();
    assert!(!sprung.has());
    assert!(write(&client, 1).await.is_err());
    sprung.wait().await;
    write(&through(&proxy).await.unwrap(), 2).await.unwrap();
    assert_eq!(server.query_one(KEPT).await, "1");
}

#[tokio::test]
async fn what_a_blocked_way_holds_back_arrives_later_also_where_the_sender_is_gone() {
    if !has_postgres() {
        return;
    }
    let (server, proxy) = proxied().await;
    let client = through(&proxy).await.unwrap();
    let sprung = proxy.trap(Fate::IsLate, Way::Open, is_write);
    let late = tokio::time::timeout(std::time::Duration::from_millis(200), write(&client, 1));
    assert!(late.await.is_err());
    sprung.wait().await;
    drop(client);
    assert_eq!(server.query_one(KEPT).await, "0");
    proxy.open();
    until("it arrives", async || {
        (server.query_one(KEPT).await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pool_gives_one_connection_of_the_server_to_many_in_turn() {
    if !has_postgres() || !has_pgbouncer() {
        return;
    }
    let (server, proxy) = proxied().await;
    let pool = PgBouncer::before(&server, 1).await;
    proxy.lead_to(pool.address);
    let clients = [
        through(&proxy).await.unwrap(),
        through(&proxy).await.unwrap(),
    ];
    // Both over one connection to the server.
    for round in 0..3 {
        for client in &clients {
            assert_eq!(write(client, round).await.unwrap().len(), 1);
        }
    }
    assert_eq!(server.query_one(KEPT).await, "6");
    assert_eq!(server.connections().await, 1);
}

/// A replica that needs no database.
async fn alone(gateway: &Gateway, directory: &std::path::Path) -> Replica {
    let nowhere = Proxy::to(([127, 0, 0, 1], 9).into()).await;
    let mut replica = Replica::new(0, directory, nowhere);
    let tokens = directory.join("tokens");
    std::fs::write(&tokens, TOKEN).unwrap();
    let settings = [
        ("gateway.url", gateway.url.clone()),
        ("merchant.secret", DEFAULT_SECRET.to_owned()),
        ("listen.address", replica.api.to_string()),
        ("listen.token_file", tokens.to_str().unwrap().to_owned()),
        ("admin.address", replica.admin.to_string()),
        ("watch.fresh_for", "1ms".to_owned()),
    ];
    for (key, value) in settings {
        replica.set(key, value);
    }
    replica
}

#[tokio::test]
async fn a_replica_is_started_asked_stopped_paused_and_killed() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::new().await;
    let replica = alone(&gateway, directory.path()).await;
    let restart = async || {
        replica.launch();
        replica.is_ready().await;
    };
    restart().await;
    let mut events = replica.stream("/events", None).await;
    let (code, watch_code) = replica.started(1000).await;
    gateway.pay(&code).await;
    replica.waits_for_completion(&watch_code).await;
    let told = async {
        loop {
            let event = events.event().await.unwrap().json();
            if event["status"] == "completed" {
                return event["code"].clone();
            }
        }
    };
    assert_eq!(in_time("the event", told).await, *code);
    assert_eq!(replica.payments().await.len(), 1);
    assert_eq!(gateway.starts(), 1);
    // The one that has heard it, and its confirmation.
    assert!(gateway.watches(&watch_code) >= 2);
    assert!(gateway.busiest_second().await.1 >= 2);
    drop(events);
    replica.stop().await;
    assert_eq!(replica.probe("/livez").await, None);
    restart().await;
    replica.pause();
    let patience = std::time::Duration::from_millis(300);
    let asked = replica.try_call(Method::GET, "/nowhere", &[], "", patience);
    assert!(asked.await.is_none());
    replica.resume();
    assert_eq!(replica.get("/nowhere").await.status, 404);
    replica.kill().await;
    assert_eq!(replica.probe("/livez").await, None);
    replica.logs(&["tillgate is running"]).await;
}
