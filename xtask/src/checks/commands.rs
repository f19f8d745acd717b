//! The commands that README.md and `docs/` show are there: in their fences of shell code, what
//! begins with `cargo xtask`, `cargo test`, `paygress` or `kubectl apply -k`.

use super::files::SourceFile;
use crate::run::{output, root};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// What a command's help says.
struct Help {
    subcommands: Vec<String>,
    text: String,
}

/// Checks against this `paygress`, and against xtask's own command line.
pub(crate) fn check(files: &[SourceFile], program: &Path, xtask: &clap::Command) -> Result<()> {
    let help = |path: &[&str]| {
        let text = output(Command::new(program).args(path).arg("--help"))?;
        Ok(Help::read(text))
    };
    let found =
        wrong(files, xtask, &help, |path| root().join(path).join("kustomization.yaml").exists())?;
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} commands in the documents are wrong:\n{}", found.len(), found.join("\n"))
}

fn wrong(
    files: &[SourceFile],
    own: &clap::Command,
    help: &impl Fn(&[&str]) -> Result<Help>,
    is_kustomization: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| is_document(&file.path)) {
        // A reader's own copy of a directory: what was copied is checked in its place.
        let mut copies: Vec<(String, String)> = Vec::new();
        for (line, command) in commands(&file.text) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let fault = match words.as_slice() {
                ["cargo", "xtask", arguments @ ..] => xtask(arguments, own),
                ["cargo", "test", arguments @ ..] => test_program(arguments, files),
                ["cp", "-r", from, to] => {
                    copies.push(((*to).to_owned(), (*from).to_owned()));
                    None
                }
                ["kubectl", "apply", "-k", path, ..] => {
                    let copied = copies.iter().find(|(to, _)| to == path);
                    let path = copied.map_or(*path, |(_, from)| from.as_str());
                    let is_local = !path.contains("://") && !path.contains(['$', '<']);
                    (is_local && !is_kustomization(path))
                        .then(|| format!("{path} is no kustomization"))
                }
                [program, arguments @ ..] if is_paygress(program) => paygress(arguments, help)?,
                _ => None,
            };
            found.extend(fault.map(|fault| format!("{}:{line}: {command}: {fault}", file.path)));
        }
    }
    Ok(found)
}

fn is_document(path: &str) -> bool {
    path == "README.md" || path.starts_with("docs/") && path.ends_with(".md")
}

fn is_paygress(program: &str) -> bool {
    program.rsplit('/').next() == Some("paygress")
}

fn xtask(arguments: &[&str], own: &clap::Command) -> Option<String> {
    let name = arguments.first().filter(|name| !name.starts_with('-'))?;
    let Some(command) = own.find_subcommand(name) else {
        return Some(format!("there is no {name}"));
    };
    let ours = arguments.iter().skip(1).take_while(|argument| **argument != "--");
    let mut flags = ours.filter_map(|argument| argument.strip_prefix("--"));
    let unknown = flags.find(|flag| {
        let flag = flag.split('=').next();
        !command.get_arguments().any(|argument| argument.get_long() == flag)
    });
    unknown.map(|flag| format!("{name} has no --{flag}"))
}

/// Looks for the program that `--test` names, in any crate.
fn test_program(arguments: &[&str], files: &[SourceFile]) -> Option<String> {
    let mut pairs = arguments.iter().zip(arguments.iter().skip(1));
    let (_, name) = pairs.find(|(flag, _)| **flag == "--test")?;
    let programs = [format!("/tests/{name}.rs"), format!("/tests/{name}/main.rs")];
    let is_there =
        files.iter().any(|file| programs.iter().any(|program| file.path.ends_with(program)));
    (!is_there).then(|| format!("there is no test program {name}"))
}

fn paygress(arguments: &[&str], help: &impl Fn(&[&str]) -> Result<Help>) -> Result<Option<String>> {
    let mut path = Vec::new();
    let mut at = help(&path)?;
    let ends = |word: &&&str| ["|", ">", "&&", ";", "#", "<"].contains(*word);
    let end = arguments.iter().position(|word| ends(&word)).unwrap_or(arguments.len());
    for argument in arguments.iter().take(end) {
        if let Some(flag) = argument.strip_prefix("--") {
            let flag = format!("--{}", flag.split('=').next().unwrap_or_default());
            let is_known =
                at.text.split(|c: char| !c.is_alphanumeric() && c != '-').any(|w| w == flag);
            if !is_known {
                return Ok(Some(format!("there is no {flag}")));
            }
        } else if at.subcommands.iter().any(|name| name == argument) {
            path.push(*argument);
            at = help(&path)?;
        } else if !at.subcommands.is_empty() && !argument.starts_with('-') {
            return Ok(Some(format!("there is no {argument}")));
        }
    }
    Ok(None)
}

/// The lines of fences of shell code; continued ones are one. What is set before a command, and a
/// prompt, is left out.
fn commands(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut shell, mut fenced) = (Vec::<(usize, String)>::new(), false, false);
    let mut continues = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            shell = !fenced && matches!(language, "sh" | "bash" | "shell" | "console");
            fenced = !fenced;
        } else if shell {
            let part = line.strip_suffix('\\').unwrap_or(line).trim();
            match found.last_mut().filter(|_| continues) {
                Some((_, command)) => *command = format!("{command} {part}"),
                None => found.push((number, part.trim_start_matches("$ ").to_owned())),
            }
            continues = line.ends_with('\\');
        }
    }
    for (_, command) in &mut found {
        while let Some((first, rest)) = command.split_once(' ') {
            if !first.contains('=') || first.contains(['"', '\'', '$', '-']) {
                break;
            }
            *command = rest.to_owned();
        }
    }
    found
}

impl Help {
    /// clap's: after `Commands:`, an indented line each.
    fn read(text: String) -> Self {
        let list = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let subcommands = list
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        Self { subcommands, text }
    }
}

#[cfg(test)]
mod tests {
    use super::{Help, SourceFile, commands, wrong};

    fn found(commands: &str) -> Vec<String> {
        let text = format!("```sh\n{commands}\n```\n");
        let file = SourceFile { path: "docs/a.md".to_owned(), text };
        let help = |path: &[&str]| {
            Ok(Help::read(match path {
                [] => "Usage: paygress\n\nCommands:\n  order  Buy\n\nOptions:\n".to_owned(),
                ["order"] => "Commands:\n  spawn  Buy\n          more\n\n".to_owned(),
                _ => "Options:\n      --token <TOKEN>  A token\n".to_owned(),
            }))
        };
        let demo = clap::Command::new("demo").arg(clap::Arg::new("once").last(true));
        let flag = clap::Arg::new("flag").long("without-cluster");
        let own =
            clap::Command::new("xtask").subcommands([demo, clap::Command::new("test").arg(flag)]);
        let swap = SourceFile { path: "host/cli/tests/swap.rs".to_owned(), text: String::new() };
        let found = wrong(&[file, swap], &own, &help, |path| path == "k8s/base").unwrap();
        found.into_iter().map(|text| text.rsplit(": ").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn commands_of_paygress_are_checked() {
        assert_eq!(found("A=b paygress order spawn --token x | jq --arg a"), [""; 0]);
        assert_eq!(found("$ target/debug/paygress order \\\n  buy"), ["there is no buy"]);
        assert_eq!(found("paygress order spawn --tokens x"), ["there is no --tokens"]);
    }

    #[test]
    fn commands_of_xtask_are_checked() {
        assert_eq!(
            found("cargo xtask demo -- --once\ncargo xtask test --without-cluster"),
            [""; 0]
        );
        assert_eq!(found("cargo xtask tests"), ["there is no tests"]);
        assert_eq!(found("cargo xtask test --fast"), ["test has no --fast"]);
    }

    #[test]
    fn test_programs_are_checked() {
        assert_eq!(found("A=1 cargo test --package paygress --test swap"), [""; 0]);
        assert_eq!(found("cargo test --test flow"), ["there is no test program flow"]);
    }

    #[test]
    fn kustomizations_are_checked() {
        assert_eq!(found("kubectl apply -k k8s/base"), [""; 0]);
        assert_eq!(found("kubectl apply -k k8s/gone"), ["k8s/gone is no kustomization"]);
        assert_eq!(found("cp -r k8s/base k8s/mine\nkubectl apply -k k8s/mine"), [""; 0]);
        let copied = found("cp -r k8s/gone k8s/mine\nkubectl apply -k k8s/mine");
        assert_eq!(copied, ["k8s/gone is no kustomization"]);
    }

    #[test]
    fn only_shell_is_read() {
        assert_eq!(commands("```rust\npaygress x\n```\n```sh\na\n```\nb\n"), [(5, "a".to_owned())]);
    }
}
