//! The shops, each in another language or with other libraries, and how they are run.

use super::*;

/// A shop in some language.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) script: &'static str,
    pub(super) program: &'static str,
    /// Succeeds in `tests/clients` where everything is there that the shop needs.
    needs: &'static [&'static str],
    /// How to get it.
    help: &'static str,
    /// It polls the open orders by itself: there is no command for it.
    pub(super) passes_by_itself: bool,
    /// How long it may be: some languages need more words.
    pub(super) most_lines: usize,
}

pub(super) const PHP: Kind = Kind {
    script: "shop.php",
    program: "php",
    needs: &["-r", "curl_init(); new PDO('sqlite::memory:');"],
    help: "apt-get install php-curl php-sqlite3",
    passes_by_itself: false,
    most_lines: 135,
};
pub(super) const SYMFONY: Kind = Kind {
    script: "shop_symfony.php",
    program: "php",
    needs: &[
        "-r",
        "require 'Symfony/Component/HttpClient/autoload.php'; new PDO('sqlite::memory:');",
    ],
    help: "apt-get install php-symfony-http-client php-sqlite3",
    passes_by_itself: false,
    most_lines: 150,
};
pub(super) const PYTHON: Kind = Kind {
    script: "shop.py",
    program: "python3",
    needs: &["-c", "import flask, requests, standardwebhooks"],
    help: "python3 -m pip install -r tests/clients/requirements.txt",
    passes_by_itself: false,
    most_lines: 135,
};
pub(super) const FASTAPI: Kind = Kind {
    script: "shop_fastapi.py",
    program: "python3",
    needs: &[
        "-c",
        "import fastapi, httpx, uvicorn, python_multipart, standardwebhooks",
    ],
    help: "python3 -m pip install -r tests/clients/requirements.txt",
    passes_by_itself: true,
    most_lines: 150,
};
pub(super) const JS: Kind = Kind {
    script: "shop.mjs",
    program: "node",
    needs: &[
        "--input-type=module",
        "-e",
        "import 'express'; import 'standardwebhooks'",
    ],
    help: "npm ci --prefix tests/clients",
    passes_by_itself: true,
    most_lines: 120,
};
pub(super) const RUBY: Kind = Kind {
    script: "shop.rb",
    program: "ruby",
    needs: &[
        "-e",
        "require 'sinatra/base'; require 'puma'; require 'sqlite3'",
    ],
    help: "apt-get install ruby-sinatra ruby-sqlite3 puma",
    passes_by_itself: false,
    most_lines: 140,
};
pub(super) const GO: Kind = Kind {
    script: "shop.go",
    program: "go",
    needs: &["version"],
    help: "apt-get install golang-go",
    passes_by_itself: true,
    most_lines: 310,
};
pub(super) const JAVA: Kind = Kind {
    script: "Shop.java",
    program: "java",
    // The compiler is not in every package of Java; it runs `java Shop.java` too.
    needs: &["--describe-module", "jdk.compiler"],
    help: "apt-get install default-jdk-headless",
    passes_by_itself: true,
    most_lines: 250,
};
pub(super) const SHELL: Kind = Kind {
    script: "shop.sh",
    program: "sh",
    needs: &["-c", "command -v curl"],
    help: "apt-get install curl",
    passes_by_itself: false,
    most_lines: 95,
};

/// All that can be opened in a browser.
pub(super) const SHOPS: [Kind; 8] = [PHP, SYMFONY, PYTHON, FASTAPI, JS, RUBY, GO, JAVA];

impl Kind {
    /// Whether this machine can run it; if not, the test says so.
    pub(super) fn is_here(self) -> bool {
        let works = || {
            let mut probe = std::process::Command::new(self.program);
            probe.args(self.needs).current_dir(file("tests/clients"));
            probe.output().is_ok_and(|output| output.status.success())
        };
        has(self.program)
            && (works() || skip(&format!("{} lacks a package: `{}`", self.script, self.help)))
    }

    fn path(self) -> PathBuf {
        file("tests/clients").join(self.script)
    }

    /// Lays what the shop needs beside it into the directory that it runs in.
    pub(super) fn lay_out(self, directory: &Path) {
        if self != SYMFONY {
            return;
        }
        // Where Composer puts its packages. Those of Debian are found without a path.
        for name in [self.script, "standard_webhooks.php"] {
            std::fs::copy(file("tests/clients").join(name), directory.join(name)).unwrap();
        }
        std::fs::create_dir(directory.join("vendor")).unwrap();
        let autoload = "<?php require 'Symfony/Component/HttpClient/autoload.php';\n";
        std::fs::write(directory.join("vendor/autoload.php"), autoload).unwrap();
    }

    /// Compiles it where it has to be, once.
    pub(super) fn build(self) {
        match self {
            GO => _ = built_by_go(),
            JAVA => _ = built_by_java(),
            _ => {}
        }
    }

    /// The command that serves the shop there, in this directory.
    pub(super) fn serve(self, address: SocketAddr, directory: &Path) -> Command {
        let mut command = Command::new(self.program);
        match self {
            GO => return Command::new(built_by_go()),
            JAVA => command
                .args(["-XX:TieredStopAtLevel=1", "-cp"])
                .arg(built_by_java())
                .arg("Shop"),
            PHP => command.args(["-S", &address.to_string()]).arg(self.path()),
            SYMFONY => command
                .args(["-S", &address.to_string()])
                .arg(directory.join(self.script)),
            _ => command.arg(self.path()),
        };
        command
    }

    /// The command of the shop that ends by itself: a poll of the open orders, for one.
    pub(super) fn run(self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        match self {
            SYMFONY => command.arg(directory.join(self.script)),
            _ => command.arg(self.path()),
        };
        command.args(arguments);
        command
    }
}

/// The shop in Java, compiled once for all tests: `java Shop.java` does it at each start, for seconds.
fn built_by_java() -> &'static Path {
    static CLASSES: LazyLock<PathBuf> = LazyLock::new(|| {
        let classes =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shop-{}", std::process::id()));
        let compiled = std::process::Command::new("javac")
            .arg("-d")
            .arg(&classes)
            .arg(JAVA.path())
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{compiled:?}");
        classes
    });
    &CLASSES
}

/// The shop in Go, compiled once for all tests.
fn built_by_go() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = directory.join(format!("shop-go-{}", std::process::id()));
        let compiled = std::process::Command::new("go")
            .arg("build")
            .arg("-o")
            .arg(&program)
            .arg(GO.path())
            .envs(for_go())
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{compiled:?}");
        program
    });
    &PROGRAM
}
