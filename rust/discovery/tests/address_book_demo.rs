//! The example `address_book_demo`, as three real processes.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Cargo builds the examples with the tests, into a directory beside them.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/address_book_demo");
    assert!(path.exists(), "{} is not built: cargo test --examples", path.display());
    path
}

struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(example())
            .arg("--local")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tx, lines) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                if tx.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Returns the first further line that contains a text.
    fn line(&mut self, what: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let patience = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(patience) else {
                panic!("no line with {what:?} in {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
    }

    fn ticket(&mut self) -> String {
        self.line("ticket: ").trim_start_matches("ticket: ").to_owned()
    }

    /// Interrupts the process, as Ctrl-C does.
    fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.line("has left.");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn three_processes_fill_their_books_and_see_one_leave() {
    let mut alice = Demo::start(&["alice"]);
    let ticket = alice.ticket();
    let mut bob = Demo::start(&["bob", &ticket]);
    alice.line("+ bob joined");
    alice.line("address book: 1 other");
    let ticket = bob.ticket();
    bob.line("+ alice joined");
    let mut charlie = Demo::start(&["charlie", &ticket]);
    charlie.line("address book: 2 other");
    alice.line("+ charlie joined");
    alice.line("address book: 2 other");
    bob.line("+ charlie joined");
    bob.interrupt();
    alice.line("- bob left");
    alice.line("address book: 1 other");
    charlie.line("- bob left");
    charlie.interrupt();
    alice.line("- charlie left");
    alice.line("address book: 0 other");
    alice.interrupt();
}

#[test]
fn a_wrong_peer_is_an_error_that_says_so() {
    let output = Command::new(example()).args(["--local", "bob", "nonsense"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("bootstrap"), "{output:?}");
}
