//! The `ssh` commands that log a customer in, with the pod's host keys in a file of its own: what
//! `ssh` knows of the same host and port is of another pod.

use crate::private_file::make_private;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::{LeaseId, PodName};
use paygress_core::protocol::{AccessWay, StatusResponse};
use paygress_gateway::GatewayTicket;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How to log in, as a service has answered. It may be anything.
pub(crate) struct PodLogin<'a> {
    pub(crate) pod: &'a str,
    pub(crate) username: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) host_keys: &'a [String],
    /// More than its port; none: there is no gateway.
    pub(crate) ways: &'a [AccessWay],
}

impl<'a> From<&'a StatusResponse> for PodLogin<'a> {
    fn from(status: &'a StatusResponse) -> Self {
        Self {
            pod: &status.pod_name,
            username: &status.ssh_username,
            host: &status.ssh_host,
            port: status.ssh_port,
            host_keys: &status.identity.ssh_host_keys,
            ways: &status.access,
        }
    }
}

/// A way to a pod, as customers choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    Iroh,
    JumpHost,
    HostPort,
}

impl Via {
    /// In the order in which they are tried.
    pub(crate) const ALL: [Self; 3] = [Self::Iroh, Self::JumpHost, Self::HostPort];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Iroh => "iroh",
            Self::JumpHost => "jump-host",
            Self::HostPort => "host-port",
        }
    }
}

/// What proxies are started with.
pub(crate) struct ProxyOptions<'a> {
    /// This program.
    pub(crate) program: &'a str,
    /// The customer's SSH key, for the jump host too.
    pub(crate) identity: Option<&'a str>,
}

impl<'a> PodLogin<'a> {
    /// The pod, if it can be one of a service's.
    pub(crate) fn pod_name(&self) -> Result<PodName> {
        let pod = lease(self.pod).map(|lease| lease.pod_name());
        pod.with_context(|| format!("{} is no pod's name", self.pod))
    }

    /// The jump host's name, port and key.
    pub(crate) fn jump_host(&self) -> Option<(&'a str, u16, &'a str)> {
        self.ways.iter().find_map(|way| match way {
            AccessWay::JumpHost { host, port, host_key, .. } if is_name(host) => {
                Some((host.as_str(), *port, host_key.as_str()))
            }
            _ => None,
        })
    }

    pub(crate) fn ticket(&self) -> Option<GatewayTicket> {
        self.ways.iter().find_map(|way| match way {
            AccessWay::Iroh { ticket, .. } => ticket.parse().ok(),
            _ => None,
        })
    }

    /// Whether the service has named this way.
    pub(crate) fn has(&self, via: Via) -> bool {
        match via {
            Via::Iroh => self.ticket().is_some(),
            Via::JumpHost => self.jump_host().is_some(),
            Via::HostPort => true,
        }
    }

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
                let file = option_value(&path).and_then(|value| shell_word(&value));
                let file = file.with_context(unchecked)?;
                format!(" -o StrictHostKeyChecking=yes -o {file}")
            }
            None => String::new(),
        };
        Ok(format!("ssh -p {port}{checked} {username}@{host}"))
    }

    /// The arguments of `ssh` by this way, up to the user and the host: others may follow.
    ///
    /// # Errors
    /// As [`ssh_command`](Self::ssh_command), or the service has not named this way.
    pub(crate) fn ssh_arguments(
        &self,
        login: &PodLogin<'_>,
        via: Via,
        options: &ProxyOptions<'_>,
    ) -> Result<Vec<String>> {
        let PodLogin { username, host, port, .. } = *login;
        ensure!(
            is_name(username) && is_name(host),
            "the answer's login cannot be used in a command"
        );
        let pod = login.pod_name()?;
        let file = self.store(login)?.map(|path| option_value(&path)).transpose()?;
        let mut checked: Vec<String> =
            options.identity.into_iter().flat_map(|key| ["-i", key]).map(str::to_owned).collect();
        if let Some(file) = file {
            checked.extend(["-o", "StrictHostKeyChecking=yes", "-o", &file].map(str::to_owned));
        }
        let unknown = || format!("the service names no way by {}; leave --via out", via.as_str());
        let (first, host) = match via {
            Via::HostPort => (vec!["-p".to_owned(), port.to_string()], host.to_owned()),
            Via::JumpHost => {
                let (gateway, port, _) = login.jump_host().with_context(unknown)?;
                let mut proxy = vec!["ssh".to_owned()];
                proxy.extend(checked.iter().cloned());
                proxy.extend(["-p".to_owned(), port.to_string(), "-W".to_owned()]);
                proxy.extend([format!("{pod}:22"), format!("{pod}@{gateway}")]);
                (proxy_command(&proxy)?, pod.to_string())
            }
            Via::Iroh => {
                let ticket = login.ticket().with_context(unknown)?.to_string();
                let proxy = [options.program, "order", "proxy", pod.as_str(), &ticket];
                (proxy_command(&proxy.map(str::to_owned))?, pod.to_string())
            }
        };
        let destination = format!("{username}@{host}");
        Ok(first.into_iter().chain(checked).chain([destination]).collect())
    }

    /// The commands for the other ways than the pod's port, to be pasted.
    pub(crate) fn way_commands(&self, login: &PodLogin<'_>) -> Vec<String> {
        let options = ProxyOptions { program: "paygress", identity: None };
        let command = |via: Via| {
            let arguments = self.ssh_arguments(login, via, &options).ok()?;
            Some(format!("ssh {}", shell_line(&arguments).ok()?))
        };
        let others = Via::ALL.into_iter().filter(|via| *via != Via::HostPort && login.has(*via));
        others.filter_map(command).collect()
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
            if !login.ways.is_empty() {
                // By the gateway `ssh` knows the pod by its name.
                let line = key.known_hosts_line(lease.pod_name().as_str(), 22);
                writeln!(file, "{line}").with_context(failed)?;
            }
        }
        if let Some((host, port, key)) = login.jump_host()
            && let Ok(key) = HostKey::parse(key)
        {
            writeln!(file, "{}", key.known_hosts_line(host, port)).with_context(failed)?;
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

/// The option for this file: `ssh` splits it at spaces, and expands `%`.
fn option_value(path: &Path) -> Result<String> {
    let text = path.to_str().unwrap_or_default();
    if is_plain_path(text) {
        return Ok(format!("UserKnownHostsFile={text}"));
    }
    if text.is_empty() || text.contains(['\'', '"', '\\', '$', '\n']) {
        bail!("ssh cannot be given the path {}; name another --key-file", path.display());
    }
    Ok(format!("UserKnownHostsFile=\"{}\"", text.replace('%', "%%")))
}

fn is_plain_path(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "/-._".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

/// The text as one word of a shell.
fn shell_word(text: &str) -> Result<String> {
    let is_plain = |c: char| c.is_alphanumeric() || "/-._:=@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    ensure!(!text.contains(['\n', '\0']), "this cannot be a part of a command: {text:?}");
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

fn shell_line(arguments: &[String]) -> Result<String> {
    let quoted: Result<Vec<String>> = arguments.iter().map(|text| shell_word(text)).collect();
    Ok(quoted?.join(" "))
}

/// `ssh` gives it to a shell, and expands `%` before.
fn proxy_command(arguments: &[String]) -> Result<Vec<String>> {
    let command = shell_line(arguments)?.replace('%', "%%");
    Ok(vec!["-o".to_owned(), format!("ProxyCommand={command}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzH";

    fn login<'a>(pod: &'a str, host: &'a str, host_keys: &'a [String]) -> PodLogin<'a> {
        PodLogin { pod, username: "alice", host, port: 20_427, host_keys, ways: &[] }
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
            let word = option_value(Path::new(path)).and_then(|value| shell_word(&value));
            assert_eq!(word.ok().as_deref(), expected, "{path}");
        }
    }

    fn jump_host(host: &str) -> AccessWay {
        AccessWay::JumpHost {
            command: "rm -rf /".to_owned(),
            host: host.to_owned(),
            port: 2_222,
            host_key: KEY.to_owned(),
            known_hosts: String::new(),
        }
    }

    #[test]
    fn a_jump_host_is_checked_by_its_own_key_in_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownHosts::beside(&directory.path().join("customer.key"));
        let (keys, ways) = ([KEY.to_owned()], [jump_host("g.example")]);
        let login = PodLogin { ways: &ways, ..login("ssh-pod-abcdefghij", "a.example", &keys) };
        let file = directory.path().join("known_hosts/ssh-pod-abcdefghij");
        let strict =
            format!("-o StrictHostKeyChecking=yes -o UserKnownHostsFile={}", file.display());
        let pod = "ssh-pod-abcdefghij";
        assert_eq!(
            known.way_commands(&login),
            [format!(
                "ssh -o 'ProxyCommand=ssh {strict} -p 2222 -W {pod}:22 {pod}@g.example' {strict} alice@{pod}"
            )]
        );
        let stored = std::fs::read_to_string(&file).unwrap();
        assert_eq!(
            stored,
            format!("[a.example]:20427 {KEY}\n{pod} {KEY}\n[g.example]:2222 {KEY}\n")
        );
        let options = ProxyOptions { program: "paygress", identity: Some("id") };
        let arguments = known.ssh_arguments(&login, Via::HostPort, &options).unwrap();
        assert_eq!(arguments.first().map(String::as_str), Some("-p"));
        assert!(arguments.join(" ").contains(" -i id "), "{arguments:?}");
        let none = known.ssh_arguments(&login, Via::Iroh, &options).unwrap_err();
        assert!(none.to_string().contains("no way by iroh; leave --via out"), "{none}");
    }

    #[test]
    fn a_way_that_is_no_name_or_ticket_is_none() {
        let keys = [KEY.to_owned()];
        let iroh = AccessWay::Iroh {
            command: String::new(),
            ticket: "$(x)".to_owned(),
            endpoint_id: String::new(),
            protocol: String::new(),
            known_hosts: None,
        };
        let ways = [jump_host("-oProxyCommand=x"), jump_host("a b"), iroh];
        let login = PodLogin { ways: &ways, ..login("ssh-pod-abcdefghij", "host", &keys) };
        assert_eq!(Via::ALL.map(|via| login.has(via)), [false, false, true]);
        let elsewhere = PodLogin { pod: "../x", ..login };
        assert!(elsewhere.pod_name().is_err());
    }

    #[test]
    fn arguments_reach_the_proxy_as_they_are() {
        let arguments = ["/opt/100% mine/paygress", "it's"].map(str::to_owned);
        let command = proxy_command(&arguments).unwrap();
        assert_eq!(command.get(1).unwrap(), "ProxyCommand='/opt/100%% mine/paygress' 'it'\\''s'");
    }
}
