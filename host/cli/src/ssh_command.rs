//! The `ssh` command that logs a customer in, with the pod's host keys in a file of its own: what
//! `ssh` knows of the same host and port is of another pod.

use crate::private_file::make_private;
use anyhow::{Context, Result, bail, ensure};
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::{LeaseId, PodName};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How to log in, as a service has answered. It may be anything.
pub(crate) struct PodLogin<'a> {
    pub(crate) pod: &'a str,
    pub(crate) username: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) host_keys: &'a [String],
}

impl PodLogin<'_> {
    /// The keys that are ones.
    pub(crate) fn host_keys(&self) -> Vec<HostKey> {
        HostKey::parse_all(self.host_keys.iter().map(String::as_str))
    }
}

/// None if the pod's name is not one of a service's.
fn lease(pod: &str) -> Option<LeaseId> {
    PodName::parse(pod).ok()?.lease()
}

/// A directory with a `known_hosts` file for each pod.
pub(crate) struct KnownHosts(PathBuf);

impl KnownHosts {
    /// Beside the customer's key.
    pub(crate) fn beside(key_file: &Path) -> Self {
        Self(key_file.with_file_name("known_hosts"))
    }

    /// The command. Where the pod's host keys are known, they are stored, and it accepts no others.
    ///
    /// # Errors
    /// The answer has no login that may be pasted into a shell, or the keys cannot be stored.
    pub(crate) fn ssh_command(&self, login: &PodLogin<'_>) -> Result<String> {
        let PodLogin { username, host, port, .. } = *login;
        ensure!(
            is_name(username) && is_name(host),
            "the answer's login cannot be used in a command: user {username}, host {host}, port {port}"
        );
        let unchecked = || {
            format!("the host key is not checked; compare it after ssh -p {port} {username}@{host}")
        };
        let checked = match self.store(login).with_context(unchecked)? {
            Some(path) => {
                let file = option(&path).with_context(unchecked)?;
                format!(" -o StrictHostKeyChecking=yes -o {file}")
            }
            None => String::new(),
        };
        Ok(format!("ssh -p {port}{checked} {username}@{host}"))
    }

    /// Forgets the keys of a pod that is over.
    pub(crate) fn forget(&self, pod: &str) {
        if lease(pod).is_some() {
            let _ = std::fs::remove_file(self.0.join(pod));
        }
    }

    /// The file; none where no key is known.
    fn store(&self, login: &PodLogin<'_>) -> Result<Option<PathBuf>> {
        let (keys, Some(lease)) = (login.host_keys(), lease(login.pod)) else { return Ok(None) };
        if keys.is_empty() {
            return Ok(None);
        }
        let directory = std::path::absolute(&self.0)?;
        let path = directory.join(lease.pod_name().as_str());
        let failed = || format!("{} cannot be written", path.display());
        make_private(&directory).with_context(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(&directory).with_context(failed)?;
        for key in &keys {
            writeln!(file, "{}", key.known_hosts_line(login.host, login.port))
                .with_context(failed)?;
        }
        file.persist(&path).with_context(failed)?;
        Ok(Some(path))
    }
}

/// Whether neither a shell nor `ssh` takes it for anything but a name.
fn is_name(text: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-._:".contains(&c);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_plain)
}

/// The option for this file, as it is pasted into a shell: `ssh` splits it at spaces, and expands
/// `%`.
fn option(path: &Path) -> Result<String> {
    let text = path.to_str().unwrap_or_default();
    let is_plain = |c: char| c.is_alphanumeric() || "/-._".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(format!("UserKnownHostsFile={text}"));
    }
    if text.is_empty() || text.contains(['\'', '"', '\\', '$', '\n']) {
        bail!("ssh cannot be given the path {}; name another --key-file", path.display());
    }
    Ok(format!("'UserKnownHostsFile=\"{}\"'", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzH";

    fn login<'a>(pod: &'a str, host: &'a str, host_keys: &'a [String]) -> PodLogin<'a> {
        PodLogin { pod, username: "alice", host, port: 20_427, host_keys }
    }

    #[test]
    fn each_pod_has_a_file_of_its_own_as_long_as_it_lives() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownHosts::beside(&directory.path().join("customer.key"));
        let keys = [KEY.to_owned(), "nonsense".to_owned()];
        let file = directory.path().join("known_hosts/ssh-pod-abcdefghij");
        for host in ["a.example", "b.example"] {
            let command = known.ssh_command(&login("ssh-pod-abcdefghij", host, &keys)).unwrap();
            let file = file.display();
            assert_eq!(
                command,
                format!(
                    "ssh -p 20427 -o StrictHostKeyChecking=yes -o UserKnownHostsFile={file} alice@{host}"
                )
            );
            let stored = std::fs::read_to_string(file.to_string()).unwrap();
            assert_eq!(stored, format!("[{host}]:20427 {KEY}\n"));
        }
        known.forget("../customer.key");
        known.forget("ssh-pod-abcdefghij");
        assert!(!file.exists());
    }

    #[test]
    fn an_answer_without_keys_gets_the_plain_command() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownHosts::beside(&directory.path().join("customer.key"));
        let keys = [KEY.to_owned()];
        for login in [login("ssh-pod-abcdefghij", "host", &[]), login("../../x", "host", &keys)] {
            assert_eq!(known.ssh_command(&login).unwrap(), "ssh -p 20427 alice@host");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is written");
    }

    #[test]
    fn what_a_service_answers_is_never_a_command_or_an_option() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownHosts::beside(&directory.path().join("customer.key"));
        for bad in ["", "-oProxyCommand=x", "h; x", "h$(x)", "h x", "h\nx", "h'x"] {
            let of_host = login("ssh-pod-abcdefghij", bad, &[]);
            let of_user = PodLogin { username: bad, ..login("ssh-pod-abcdefghij", "host", &[]) };
            for login in [of_host, of_user] {
                assert!(known.ssh_command(&login).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn a_path_is_quoted_for_the_shell_and_for_ssh() {
        for (path, expected) in [
            ("/home/a/known_hosts/p", Some("UserKnownHostsFile=/home/a/known_hosts/p")),
            ("/home/a b/100%", Some("'UserKnownHostsFile=\"/home/a b/100%%\"'")),
            ("/home/a'b", None),
            ("/home/$HOME", None),
        ] {
            assert_eq!(option(Path::new(path)).ok().as_deref(), expected, "{path}");
        }
    }
}
