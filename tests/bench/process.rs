//! The programs under measure, and what the system tells of them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tillgate");

/// A running `tillgate`, killed when dropped.
pub(crate) struct Process(Child);

/// A sidecar, and where it is.
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    pub(crate) api: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// From its start to the first `/readyz` that says 200.
    pub(crate) ready_after: Duration,
}

impl Process {
    /// Starts it, and says how long it took until `ready`.
    fn start(mut command: Command, ready: impl Fn() -> bool) -> (Self, Duration) {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let began = Instant::now();
        let process = Self(command.spawn().expect("the program starts"));
        while !ready() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the program is not ready in time"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
        (process, began.elapsed())
    }

    /// Ends it in peace.
    pub(crate) fn terminate(mut self) {
        let asked = Command::new("kill")
            .args(["-s", "TERM", &self.0.id().to_string()])
            .status();
        assert!(asked.is_ok_and(|asked| asked.success()), "no kill");
        let ended = self.0.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
    }

    /// Memory that is really there.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("it stands there");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
            * 1024
    }

    /// Files and sockets that it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id()))
            .expect("root may look")
            .count()
    }

    /// Time on a core so far, in the program and in the kernel on its behalf, of all threads that still are. Not from
    /// `stat`: that is sampled every hundredth of a second, and work shorter than that mostly goes unseen.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time(self.0.id())
    }
}

/// The same of any process; nothing of one that is gone.
pub(crate) fn cpu_time(id: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{id}/task"));
    let times = threads.into_iter().flatten().filter_map(|thread| {
        let schedstat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sandbox gateway.
pub(crate) fn sandbox() -> (Process, SocketAddr) {
    sandbox_with(&[])
}

/// The same with these arguments.
pub(crate) fn sandbox_with(arguments: &[&str]) -> (Process, SocketAddr) {
    let [address, _] = free_addresses();
    let mut command = Command::new(PROGRAM);
    command.args(["sandbox", "--listen", &address.to_string()]);
    command.args(arguments);
    (
        Process::start(command, || TcpStream::connect(address).is_ok()).0,
        address,
    )
}

/// A sidecar in front of that gateway, with these settings besides; on a core of its own if `pinned`. Its log goes to
/// /dev/null.
pub(crate) fn sidecar(gateway: SocketAddr, more: &[(&str, &str)], pinned: bool) -> Sidecar {
    sidecar_under(&[], gateway, more, pinned)
}

/// The same, started by another program.
pub(crate) fn sidecar_under(
    under: &[&str],
    gateway: SocketAddr,
    more: &[(&str, &str)],
    pinned: bool,
) -> Sidecar {
    let [api, admin] = free_addresses();
    let pin = if pinned {
        &["taskset", "-c", "0"][..]
    } else {
        &[]
    };
    let words = [pin, under, &[PROGRAM]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let settings = [
        ("GATEWAY__URL", &*format!("http://{gateway}")),
        ("MERCHANT__SECRET", tillgate::sandbox::DEFAULT_SECRET),
        ("LISTEN__ADDRESS", &api.to_string()),
        ("ADMIN__ADDRESS", &admin.to_string()),
        ("START__RATE", "1000000"),
        ("START__BURST", "1000000"),
    ];
    let settings = settings
        .iter()
        .chain(more)
        .map(|(name, value)| (format!("TILLGATE_{name}"), value));
    command.arg("run").env_clear().envs(settings);
    let (process, ready_after) = Process::start(command, || load::is_ready(admin));
    Sidecar {
        process,
        api,
        admin,
        ready_after,
    }
}

/// nginx as a proxy before that gateway, a new connection to it for each request; on a core of its own if `pinned`. `None`
/// where it is not installed.
pub(crate) fn nginx(gateway: SocketAddr, pinned: bool) -> Option<(Process, SocketAddr)> {
    let version = Command::new("nginx")
        .arg("-v")
        .stderr(Stdio::null())
        .status();
    if !version.is_ok_and(|status| status.success()) {
        return None;
    }
    let [address, _] = free_addresses();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("nginx");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).display().to_string();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};", path(name)));
    // One process, whose time on a core is all that there is.
    let config = format!(
        "daemon off; master_process off; pid {}; error_log /dev/null; events {{ worker_connections 4096; }}
         http {{ access_log off; keepalive_requests 1000000000; {}
         server {{ listen {address}; location / {{ proxy_pass http://{gateway}; proxy_http_version 1.1; proxy_set_header Connection close; }} }} }}",
        path("pid"),
        temporary.concat()
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("a file");
    let pin = if pinned {
        &["taskset", "-c", "0"][..]
    } else {
        &[]
    };
    let (file, log) = (path("nginx.conf"), path("error.log"));
    let words = [pin, &["nginx", "-c", &file, "-e", &log]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    Some((
        Process::start(command, || TcpStream::connect(address).is_ok()).0,
        address,
    ))
}

/// Addresses that nobody has at this moment: at `log.level = "warn"` the program tells nobody which it took.
pub(crate) fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

/// Moves this process, and what it starts from here on, off the sidecar's core. False where that cannot be.
pub(crate) fn pin_the_rest() -> bool {
    let id = std::process::id().to_string();
    let pin = Command::new("taskset")
        .args(["-a", "-cp", "1", &id])
        .stdout(Stdio::null())
        .status();
    pin.is_ok_and(|status| status.success())
}

/// So many files this process may have open, and each that it starts.
pub(crate) fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok())
        .unwrap_or(usize::MAX)
}

/// What all this runs on.
pub(crate) fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores of {}, Linux {}",
        model.unwrap_or("an unknown CPU"),
        kernel.trim()
    )
}
