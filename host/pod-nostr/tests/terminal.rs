//! `paygress-top-up` at a terminal, where the token that is pasted is not shown.
#![cfg(test)]

use paygress_nostr::{Keys, npub};
use pty_process::blocking::{Command, Pty, open};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{LocalModes, tcgetattr};
use std::io::{Read, Write};
use std::process::Child;
use tempfile::TempDir;

/// It goes on when the program is interrupted, as the shell of a login does, and lives until a line
/// is typed: the end of the first program of a terminal resets that.
const SHELL: &str = r#"trap : INT TERM; "$0" top-up; echo "exit $?"; read -r line"#;

/// A login that is at the prompt for a token.
struct Login {
    shell: Child,
    terminal: Pty,
    shown: String,
    _home: TempDir,
}

impl Login {
    fn at_the_prompt() -> Self {
        let (terminal, of_shell) = open().unwrap();
        let home = tempfile::tempdir().unwrap();
        let shell = Command::new("/bin/sh")
            .args(["-c", SHELL, env!("CARGO_BIN_EXE_paygress-nostr")])
            .env_clear()
            .env("HOME", home.path())
            .env("PAYGRESS_POD", "ssh-pod-abcdefghij")
            .env("PAYGRESS_NPUB", npub(&Keys::generate().public_key()))
            .env("PAYGRESS_RELAYS", "wss://relay.invalid")
            .spawn(of_shell)
            .unwrap();
        let mut login = Self { shell, terminal, shown: String::new(), _home: home };
        login.wait_for("Paste a Cashu token");
        login
    }

    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 256];
        while !self.shown.contains(text) {
            let length = self.terminal.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "{}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    fn end(mut self) {
        self.terminal.write_all(b"\n").unwrap();
        assert!(self.shell.wait().unwrap().success(), "{}", self.shown);
    }
}

#[test]
fn an_interrupted_prompt_leaves_the_terminal_as_it_was() {
    let interruptions: [fn(&mut Login); 2] = [
        |login| login.terminal.write_all(b"\x03").unwrap(),
        |login| kill_process_group(Pid::from_child(&login.shell), Signal::TERM).unwrap(),
    ];
    for interrupt in interruptions {
        let mut login = Login::at_the_prompt();
        assert!(!login.echoes(), "the token is not shown");
        interrupt(&mut login);
        login.wait_for("exit 130");
        assert!(login.echoes());
        login.end();
    }
}

#[test]
fn what_is_pasted_is_not_shown() {
    let mut login = Login::at_the_prompt();
    login.terminal.write_all(b"no token of a mint\n").unwrap();
    login.wait_for("exit 1\r");
    assert!(!login.shown.contains("of a mint"), "{}", login.shown);
    assert!(login.shown.contains("not a Cashu token"), "{}", login.shown);
    assert!(login.echoes());
    login.end();
}
