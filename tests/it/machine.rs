//! Machines that give too little: no threads, no memory. The program says which limit it is, and never hangs or crashes.

use std::path::Path;

use crate::harness::{NOBODY, Program, has, skip};

const FINE: [(&str, &str); 4] = [
    ("gateway.url", NOBODY),
    ("merchant.secret", "a_secret_of_this_test_only"),
    ("listen.address", "127.0.0.1:0"),
    ("admin.address", "127.0.0.1:0"),
];

/// Runs this among limits to its end; the exit code, and what was printed.
async fn limited(under: &[&str], arguments: &[&str]) -> (i32, String) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = Program::start_under(under, directory, arguments, &FINE);
    let (code, out, err) = program.end().await;
    (code, out + &err)
}

#[tokio::test]
async fn without_threads_each_command_says_which_limit_it_is() {
    // A user of its own, whose threads are those of this test alone.
    let user = 1_000_000 + std::process::id();
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let as_user = ["setpriv", &uid, &gid, "--clear-groups", "--"];
    if !has("setpriv") || !has("prlimit") || limited(&as_user, &["--version"]).await.0 != 0 {
        skip("no other user can be taken on here (that takes root, setpriv and prlimit)");
        return;
    }
    for threads in 1..=4 {
        let limit = format!("--nproc={threads}");
        let under = [&as_user[..], &["prlimit", &limit, "--"]].concat();
        for command in [
            &["run"][..],
            &["check"],
            &["dev"],
            &["health"],
            &["sandbox"],
        ] {
            let (code, said) = limited(&under, command).await;
            assert_eq!(code, 1, "{command:?} with {threads}: {said}");
            let line = format!("(ulimit -u, RLIMIT_NPROC) is {threads}");
            assert!(said.contains(&line) && said.lines().count() == 1, "{said}");
        }
    }
}

#[tokio::test]
async fn without_memory_it_says_which_limit_it_is() {
    if !has("prlimit") {
        return;
    }
    let mut told = 0;
    for mebibytes in (32..96).step_by(2) {
        let limit = format!("--as={}", mebibytes << 20);
        let under = ["prlimit", &limit, "--"];
        let (code, said) = limited(&under, &["check"]).await;
        // Of less than the loader needs for the program, the program knows nothing.
        let is_loaded = !said.contains("error while loading shared libraries");
        assert!(
            code == 0 || code == 1 || !is_loaded,
            "{limit}: {code} {said}"
        );
        if code == 1 {
            assert!(said.contains("RLIMIT_AS"), "{limit}: {said}");
            told += 1;
        }
    }
    assert!(told > 0);
    let (code, said) = limited(&["prlimit", "--data=8388608", "--"], &["run"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("ulimit -d, RLIMIT_DATA) is 8388608"),
        "{said}"
    );
}
