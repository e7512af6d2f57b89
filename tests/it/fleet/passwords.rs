//! Who may come in: passwords, roles, databases and rights.

use super::postgres::{Options, PASSWORD, USER};
use super::replica::{assert_away, codes, order};
use super::{Fleet, MANY, until};

async fn change_password(fleet: &Fleet, password: &str) {
    let alter = format!("alter role {USER} password '{password}'");
    fleet.server.query(&alter).await;
}

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_used_for_new_connections() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let shown = codes(&fleet[0].start(Some("order-1"), &order(1000)).await);
    // Those that are there live on.
    change_password(&fleet, "another-password").await;
    let started = fleet[1].start(Some("order-2"), &order(1000)).await;
    codes(&started);
    // A new one is refused while the file has the old password.
    fleet[0].proxy.cut();
    fleet[0].has_store(false).await;
    assert_away(&fleet[0].start(None, &order(1000)).await, "not_sent");
    fleet[0].logs(&["store.password_file"]).await;
    fleet.write("password", "another-password\n");
    fleet[0].has_store(true).await;
    let again = fleet[0].start(Some("order-1"), &order(1000)).await;
    assert_eq!(codes(&again), shown);
    codes(&fleet[0].start(Some("order-3"), &order(1000)).await);
    // And the other way round: first the file.
    fleet.write("password", PASSWORD);
    codes(&fleet[1].start(Some("order-4"), &order(1000)).await);
    change_password(&fleet, PASSWORD).await;
    fleet[1].proxy.cut();
    fleet[1].start_at_last("order-5", &order(1000)).await;
    for replica in &fleet.replicas {
        for password in [PASSWORD, "another-password"] {
            assert!(!replica.log().contains(password), "{}", replica.name);
        }
    }
}

/// A replica that cannot open the store with this URL or password runs, is not ready, and says why in these words.
async fn is_refused(fleet: &mut Fleet, key: &str, value: &str, words: &[&str]) {
    fleet.replicas[0].set(key, value);
    let replica = &fleet[0];
    replica.launch();
    replica.is_up().await;
    replica.logs(words).await;
    assert_eq!(replica.probe("/readyz").await, Some(503), "{words:?}");
    let store = replica.admin("/readyz/store").await;
    assert_eq!(store.status, 503, "{store:?}");
    assert_away(&replica.start(None, &order(1000)).await, "not_sent");
    assert_eq!(replica.watch("unheard-of").await.status, 404);
    assert_eq!(fleet.gateway.starts(), 0);
    replica.stop().await;
    let said = replica.log();
    for password in [PASSWORD, "a-wrong-password"] {
        assert!(!said.contains(password), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_password_role_or_database_is_named_and_nothing_is_started() {
    let Some(mut fleet) = Fleet::prepare(1, Options::default()).await else {
        return;
    };
    let address = fleet[0].proxy.address;
    let good = (
        format!("postgres://{USER}@{address}/{USER}"),
        fleet.path("password"),
    );
    fleet.write("wrong", "a-wrong-password");
    let wrong = fleet.path("wrong");
    is_refused(
        &mut fleet,
        "store.password_file",
        &wrong,
        &["store.password_file", "password"],
    )
    .await;
    fleet.replicas[0].set("store.password_file", &good.1);
    for (url, word) in [
        (format!("postgres://nobody@{address}/{USER}"), "nobody"),
        (format!("postgres://{USER}@{address}/nowhere"), "nowhere"),
    ] {
        is_refused(&mut fleet, "store.url", &url, &["store.url", word]).await;
    }
    fleet.replicas[0].set("store.url", &good.0);
    fleet[0].restart().await;
    codes(&fleet[0].start(None, &order(1000)).await);
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_is_told_what_an_administrator_runs() {
    let Some(mut fleet) = Fleet::prepare(2, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    let take = format!(
        "alter database {USER} owner to postgres; revoke create on database {USER} from public"
    );
    fleet.server.query(&take).await;
    fleet[0].launch();
    let status = fleet[0].ended().await;
    assert_eq!(status.code(), Some(1), "{}", fleet[0].log());
    fleet[0].logs(&["tillgate store schema"]).await;
    // The administrator does, and gives the rights that the docs name.
    let (code, schema) = fleet[0].command_output(&["store", "schema"]).await;
    assert_eq!(code, 0, "{schema}");
    fleet.server.query(&schema).await;
    let grant = format!(
        "grant usage on schema tillgate to {USER}; \
         grant select, insert, update, delete, truncate on all tables in schema tillgate to {USER}"
    );
    fleet.server.query(&grant).await;
    fleet.run().await;
    let shown = codes(&fleet[0].start(Some("order-1"), &order(1000)).await);
    let again = fleet[1].start(Some("order-1"), &order(1000)).await;
    assert_eq!(codes(&again), shown);
}

#[tokio::test]
async fn a_store_belongs_to_one_gateway() {
    let Some(mut fleet) = Fleet::new(1, &MANY).await else {
        return;
    };
    codes(&fleet[0].start(None, &order(1000)).await);
    fleet.add_replica().await;
    fleet.replicas[1].set("gateway.url", "http://127.0.0.1:9");
    fleet[1].launch();
    let status = fleet[1].ended().await;
    assert_eq!(status.code(), Some(1), "{}", fleet[1].log());
    fleet[1].logs(&["gateway.url"]).await;
    // Another schema of the same database is another store.
    let other = format!(
        "postgres://{USER}@{}/{USER}?schema=another_shop",
        fleet[1].proxy.address
    );
    fleet.replicas[1].set("store.url", other);
    fleet[1].restart().await;
    assert!(fleet[1].payments().await.is_empty());
    assert_eq!(fleet[0].payments().await.len(), 1);
}

#[tokio::test]
async fn status_names_the_replicas_and_check_looks_at_the_database() {
    let Some(mut fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    for replica in &fleet.replicas {
        until("two replicas", async || {
            let members = replica.members().await;
            let same = members.iter().all(|member| member["same_settings"] == true);
            (members.len() == 2 && same).then_some(())
        })
        .await;
    }
    let (code, said) = fleet[0].command_output(&["check", "--online"]).await;
    assert_eq!(code, 0, "{said}");
    for secret in [PASSWORD, super::replica::TOKEN] {
        assert!(!said.contains(secret), "{said}");
    }
    assert!(
        said.contains(&fleet[0].proxy.address.port().to_string()),
        "{said}"
    );
    // One with other limits is named.
    fleet[1].stop().await;
    fleet.replicas[1].set("start.rate", "7");
    fleet[1].restart().await;
    until("one differs", async || {
        let members = fleet[0].members().await;
        members
            .iter()
            .any(|member| member["same_settings"] == false)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn tables_of_a_later_version_are_used_if_they_can_be_and_refused_in_words_if_not() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let shown = codes(&fleet[0].start(Some("order-1"), &order(1000)).await);
    // Something was added that this version need not know.
    let added = "update tillgate.meta set version = 99; alter table tillgate.log add more text";
    fleet.server.query(added).await;
    fleet[1].kill().await;
    fleet[1].restart().await;
    let again = fleet[1].start(Some("order-1"), &order(1000)).await;
    assert_eq!(codes(&again), shown);
    codes(&fleet[0].start(Some("order-2"), &order(1000)).await);
    // Something was changed.
    fleet
        .server
        .query("update tillgate.meta set readable_from = 99")
        .await;
    fleet[1].kill().await;
    fleet[1].launch();
    let status = fleet[1].ended().await;
    assert_eq!(status.code(), Some(1), "{}", fleet[1].log());
    fleet[1].logs(&["99"]).await;
}

#[tokio::test]
async fn what_run_refuses_is_refused_by_check_too() {
    let Some(mut fleet) = Fleet::new(1, &MANY).await else {
        return;
    };
    codes(&fleet[0].start(Some("order-1"), &order(1000)).await);
    fleet[0].stop().await;
    let backup = "create table public.log as table tillgate.log";
    fleet.server.query(backup).await;
    for (breaks, mends, word) in [
        (
            "update tillgate.meta set readable_from = 99, version = 99",
            "update tillgate.meta set readable_from = 1, version = 1",
            "version 99",
        ),
        (
            "truncate tillgate.log",
            "insert into tillgate.log table public.log",
            "no last write",
        ),
        (
            "alter table tillgate.meta rename gateway to other",
            "alter table tillgate.meta rename other to gateway",
            "SQLSTATE 42703",
        ),
    ] {
        fleet.server.query(breaks).await;
        let (code, said) = fleet[0].command_output(&["check", "--online"]).await;
        assert!(code != 0 && said.contains(word), "{code}: {said}");
        fleet.server.query(mends).await;
        let (code, said) = fleet[0].command_output(&["check", "--online"]).await;
        assert_eq!(code, 0, "{said}");
    }
    let another = super::gateway::Gateway::new().await;
    fleet.replicas[0].set("gateway.url", another.url.clone());
    let (code, said) = fleet[0].command_output(&["check", "--online"]).await;
    assert!(code != 0 && said.contains("belongs to"), "{code}: {said}");
}

#[tokio::test]
async fn a_role_whose_transactions_undo_one_another_is_refused_with_what_to_run() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    for isolation in ["serializable", "repeatable read"] {
        let set = format!("alter role {USER} set default_transaction_isolation = '{isolation}'");
        fleet.server.query(&set).await;
        fleet.server.terminate_all().await;
        fleet.have_store(false).await;
        let run = format!("alter role {USER} set default_transaction_isolation = 'read committed'");
        fleet[0].logs(&[isolation, &run]).await;
        let (code, said) = fleet[0].command_output(&["check", "--online"]).await;
        assert!(code != 0 && said.contains(&run), "{code}: {said}");
        fleet.server.query(&run).await;
        fleet.have_store(true).await;
    }
}

#[tokio::test]
async fn what_the_server_undoes_for_another_transaction_is_sent_again() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    // Every other row is refused.
    let undo = format!(
        "create sequence tillgate.tries; grant usage on sequence tillgate.tries to {USER}; \
         create function tillgate.undo() returns trigger language plpgsql as $$ begin \
         if nextval('tillgate.tries') % 2 = 1 then \
         raise exception 'undone' using errcode = '40001'; end if; return new; end $$; \
         create trigger undo before insert on tillgate.log for each row execute function tillgate.undo(); \
         create trigger undo before insert on tillgate.leases for each row execute function tillgate.undo()"
    );
    fleet.server.query(&undo).await;
    for number in 0..10 {
        let key = format!("order-{number}");
        codes(&fleet[number % 2].start(Some(&key), &order(1000)).await);
    }
    assert_eq!(fleet.gateway.starts(), 10);
}
