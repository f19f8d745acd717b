//! The command line. What is wrong with it is never quoted: it may be a token.

use crate::output::{print_line, print_note};
use crate::send_reply::{ReplyFiles, reply};
use crate::top_up::{ANSWER_TIMEOUT, Mode, TopUp, top_up};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
usage: paygress-top-up [--resume] [--wait SECONDS]
       paygress-nostr top-up [--resume] [--wait SECONDS]
       paygress-nostr reply --message FILE --host-keys DIR --termination-message FILE

paygress-top-up extends the pod that it runs in. It reads a Cashu token from standard input.
  --resume        read no token; ask about those that have no answer yet
  --wait SECONDS  how long to wait for the answer, 1 to 600; 60
It exits with 0 if the pod was extended, 1 if it was not, 2 if there is no answer, 130 if it was
interrupted.";

/// The name by which `top-up` is called without saying so.
const TOP_UP: &str = "paygress-top-up";
const REPLY: &str = "reply";
/// The longest `--wait`, in seconds.
const WAIT_SECONDS: u64 = 600;
/// The exit code of what Ctrl-C has ended, as shells have it.
const INTERRUPTED: u8 = 130;

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Reply(ReplyFiles),
    TopUp(TopUp),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UsageError {
    #[error("an argument is unknown or has no value; a token is read from standard input alone")]
    Argument,
    #[error("--wait takes a number of seconds from 1 to 600")]
    Wait,
}

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    // Keys and tokens are in this memory: no core dump has it, and no other process of the user
    // reads it. If that cannot be had, it is as in any other program.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (command, is_reply) = match arguments.as_slice() {
        [name, rest @ ..] if Path::new(name).file_name() == Some(OsStr::new(TOP_UP)) => {
            (parse_top_up(rest), false)
        }
        [_, rest @ ..] => (parse(rest), rest.first().is_some_and(|first| first == REPLY)),
        [] => (Err(UsageError::Argument), false),
    };
    let failed = |reason: &dyn std::fmt::Display| {
        print_note(format_args!("{reason}\n\n{USAGE}"));
        // An init container that fails would keep the pod from starting.
        if is_reply { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    };
    let command = match command {
        Ok(command) => command,
        Err(error) => return failed(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let code = match command {
        Command::Help => {
            print_line(USAGE);
            ExitCode::SUCCESS
        }
        Command::Reply(files) => {
            runtime.block_on(reply(&files));
            ExitCode::SUCCESS
        }
        Command::TopUp(options) => runtime.block_on(until_interrupted(top_up(options))),
    };
    // A name may still be being resolved.
    runtime.shutdown_background();
    code
}

/// Runs this to its end, or until the user or the system ends the program: then it is dropped, and with
/// it what it has changed of the terminal.
async fn until_interrupted(program: impl Future<Output = ExitCode>) -> ExitCode {
    tokio::select! {
        // Before anything is changed.
        biased;
        () = interrupted() => ExitCode::from(INTERRUPTED),
        code = program => code,
    }
}

async fn interrupted() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate)] = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn parse(arguments: &[OsString]) -> Result<Command, UsageError> {
    let Some((first, rest)) = arguments.split_first() else { return Err(UsageError::Argument) };
    match first.to_str() {
        Some("top-up") => parse_top_up(rest),
        Some(REPLY) => parse_reply(rest),
        Some("--help" | "-h" | "help") => Ok(Command::Help),
        _ => Err(UsageError::Argument),
    }
}

fn parse_top_up(mut arguments: &[OsString]) -> Result<Command, UsageError> {
    let mut options = TopUp { mode: Mode::New, wait: ANSWER_TIMEOUT };
    while let Some((option, rest)) = arguments.split_first() {
        arguments = match (option.to_str(), rest) {
            (Some("--help" | "-h"), _) => return Ok(Command::Help),
            (Some("--resume"), rest) => {
                options.mode = Mode::Resume;
                rest
            }
            (Some("--wait"), [seconds, rest @ ..]) => {
                let seconds = seconds.to_str().and_then(|text| text.parse::<u64>().ok());
                let seconds = seconds.filter(|seconds| (1..=WAIT_SECONDS).contains(seconds));
                options.wait = Duration::from_secs(seconds.ok_or(UsageError::Wait)?);
                rest
            }
            _ => return Err(UsageError::Argument),
        };
    }
    Ok(Command::TopUp(options))
}

fn parse_reply(mut arguments: &[OsString]) -> Result<Command, UsageError> {
    let (mut message, mut host_keys, mut termination_message) = (None::<PathBuf>, None, None);
    while let Some((option, rest)) = arguments.split_first() {
        let Some((value, rest)) = rest.split_first() else { return Err(UsageError::Argument) };
        let place = match option.to_str() {
            Some("--message") => &mut message,
            Some("--host-keys") => &mut host_keys,
            Some("--termination-message") => &mut termination_message,
            _ => return Err(UsageError::Argument),
        };
        *place = Some(value.into());
        arguments = rest;
    }
    match (message, host_keys, termination_message) {
        (Some(message), Some(host_keys), Some(termination_message)) => {
            Ok(Command::Reply(ReplyFiles { message, host_keys, termination_message }))
        }
        _ => Err(UsageError::Argument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, UsageError> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&arguments)
    }

    #[test]
    fn a_command_line_is_read_whole_or_refused_without_a_quote() {
        let files = ReplyFiles {
            message: "/m".into(),
            host_keys: "/k".into(),
            termination_message: "/t".into(),
        };
        let reply = "reply --message /m --host-keys /k --termination-message /t";
        assert_eq!(parsed(reply), Ok(Command::Reply(files)));
        let seven = Duration::from_secs(7);
        for (line, mode, wait) in [
            ("top-up", Mode::New, ANSWER_TIMEOUT),
            ("top-up --resume", Mode::Resume, ANSWER_TIMEOUT),
            ("top-up --wait 7 --resume", Mode::Resume, seven),
        ] {
            assert_eq!(parsed(line), Ok(Command::TopUp(TopUp { mode, wait })), "{line}");
        }
        assert_eq!(parsed("top-up --help"), Ok(Command::Help));
        for line in ["", "other", "reply", "reply --message", "top-up cashuBsecret"] {
            let error = parsed(line).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for line in ["top-up --wait 0", "top-up --wait 601", "top-up --wait soon"] {
            assert_eq!(parsed(line), Err(UsageError::Wait), "{line}");
        }
    }
}
