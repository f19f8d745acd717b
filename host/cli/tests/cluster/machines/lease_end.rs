//! The end of a pod, as a terminal in it shows it.

use super::{SoldPod, TINY, allow_server, start};
use crate::support::testbed::{CLUSTER, wait_for};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The pod lives for more than two minutes, and has its notice when less than half of them is left:
/// earlier ones are left out. The kubelet brings what has changed since within two minutes.
const NOTICE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

/// A terminal that is open, and what it has shown.
struct Terminal {
    client: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(machine: &SoldPod) -> Self {
        let mut ssh = machine.client("ssh");
        // The input stays open as long as the child has it.
        ssh.args(["-tt", "pod", "echo ready; exec cat"]).stdin(Stdio::piped());
        let mut client = ssh.stdout(Stdio::piped()).spawn().unwrap();
        let mut screen = client.stdout.take().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let terminal = Self { client, shown: Arc::clone(&shown) };
        std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
            }
        });
        terminal
    }

    fn shows(&self, expected: &str) -> bool {
        self.shown.lock().unwrap().contains(expected)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_terminal_shows_the_end_before_it_comes_and_that_a_top_up_has_moved_it() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    let testbed = start("machines-end", TINY, &[], &[("END_NOTICES", "65,5")]);
    let machine = SoldPod::buy(&testbed, 29, &json!({}));
    let terminal = Terminal::open(&machine);
    wait_for("the terminal", SOON, || terminal.shows("ready"));
    let script = "until [ -e go ]; do printf 0123456789; sleep 0.1; done";
    let mut command = machine.client("ssh");
    let command = command.args(["pod", script]).stdout(Stdio::piped()).spawn().unwrap();
    assert!(!terminal.shows("This pod"), "it has just begun");
    wait_for("the notice", NOTICE, || terminal.shows("This pod ends at "));
    let more = json!({"pod_name": machine.answer["pod_name"], "cashu_token": testbed.token(25)});
    let answer = testbed.ask(&more);
    assert_eq!(answer["success"], Value::Bool(true), "{answer}");
    wait_for("the line about the top-up", NOTICE, || {
        terminal.shows("This pod was extended until ")
    });
    machine.run("touch go");
    let done = command.wait_with_output().unwrap();
    assert!(!done.stdout.is_empty() && done.stdout.chunks(10).all(|it| it == b"0123456789"));
    println!("{}", terminal.shown.lock().unwrap());
}
