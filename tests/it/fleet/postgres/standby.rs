//! A second server that follows the first.

use tokio::process::Command;

use super::{Options, Postgres, template};
use crate::fleet::until;

impl Postgres {
    /// A standby of this server, which runs and has caught up.
    pub async fn standby(&self) -> Self {
        let home = template::directory();
        let data = home.path().join("data");
        let mut backup = template::unprivileged(&template::program("pg_basebackup"));
        backup.arg("-D").arg(&data).args([
            &format!("--host={}", self.directory.path().display()),
            &format!("--port={}", self.port),
            "--username=postgres",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        template::succeeds(backup.current_dir("/")).await;
        let options = Options {
            small_disk: None,
            small_log_disk: None,
            ..self.options.clone()
        };
        let standby = Self::of(home, data, options, Vec::new());
        standby.start().await;
        self.has_standby().await;
        standby
    }

    /// Waits until a standby streams from this server.
    pub async fn has_standby(&self) {
        until("a standby streams", async || {
            let streaming = "select 1 from pg_stat_replication where state = 'streaming'";
            (!self.query(streaming).await.is_empty()).then_some(())
        })
        .await;
    }

    /// From here on each commit waits until the standby has it, and there is one that has everything so far.
    pub async fn make_synchronous(&self) {
        self.set("synchronous_standby_names", "*").await;
        until("the standby is synchronous", async || {
            let synchronous = "select 1 from pg_stat_replication where sync_state = 'sync'";
            (!self.query(synchronous).await.is_empty()).then_some(())
        })
        .await;
    }

    /// A standby hears nothing of its primary from here on, for good.
    pub async fn detach(&self) {
        self.query("alter system set primary_conninfo = ''").await;
        self.query("select pg_reload_conf()").await;
        until("it receives nothing", async || {
            let receiving = "select 1 from pg_stat_wal_receiver";
            self.query(receiving).await.is_empty().then_some(())
        })
        .await;
    }

    /// A standby becomes a server that takes writes.
    pub async fn promote(&self) {
        assert_eq!(self.query_one("select pg_promote(true, 60)").await, "t");
        until("it takes writes", async || {
            (self.query_one("select pg_is_in_recovery()").await == "f").then_some(())
        })
        .await;
        // It waits for no standby of its own, whatever its primary did.
        self.set("synchronous_standby_names", "").await;
    }

    /// Keeps everything that is committed now aside; gives the name of that.
    pub async fn backup(&self) -> String {
        self.stop_immediately().await;
        let to = self.data.with_extension("backup");
        template::succeeds(Command::new("cp").arg("-a").arg(&self.data).arg(&to)).await;
        self.start().await;
        to.to_str().expect("UTF-8").to_owned()
    }

    /// Goes back to what was kept aside, as a restore does.
    pub async fn restore(&self, backup: &str) {
        self.kill().await;
        std::fs::remove_dir_all(&self.data).expect("it is there");
        std::fs::rename(backup, &self.data).expect("it is there");
        self.start().await;
    }
}
