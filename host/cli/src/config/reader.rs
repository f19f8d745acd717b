//! Reads values one by one and collects what is wrong.

use super::keys::find;
use std::collections::BTreeMap;
#[cfg(test)]
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

/// A list separated by commas.
pub(super) fn items(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Reads values from the file and the environment, which takes precedence.
pub(crate) struct Reader {
    pub(super) file: toml::Table,
    environment: BTreeMap<String, String>,
    pub(super) problems: Vec<String>,
    #[cfg(test)]
    pub(super) keys_read: BTreeSet<&'static str>,
}

impl Reader {
    pub(super) fn new(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut reader = Self {
            file: toml::Table::new(),
            environment: environment.into_iter().collect(),
            problems: Vec::new(),
            #[cfg(test)]
            keys_read: BTreeSet::new(),
        };
        match file.map(str::parse::<toml::Table>) {
            None => {}
            Some(Ok(table)) => reader.file = table,
            // The parser's message quotes the line, and the line may hold the key.
            Some(Err(error)) => {
                let at = error.span().map(|span| {
                    file.unwrap_or_default()
                        .get(..span.start)
                        .unwrap_or_default()
                        .lines()
                        .count()
                        .max(1)
                });
                reader.problems.push(format!(
                    "the config file is not TOML: {} (line {})",
                    error.message(),
                    at.unwrap_or(1)
                ));
            }
        }
        reader
    }

    /// A variable of the system, which the file does not have.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    /// The value that was given, in the environment or in the file.
    fn given(&mut self, key: &'static str) -> Option<String> {
        #[cfg(test)]
        self.keys_read.insert(key);
        let in_file = self.file.remove(&key.to_lowercase());
        if let Some(value) = self.environment.get(key).filter(|value| !value.trim().is_empty()) {
            return Some(value.trim().to_owned());
        }
        match in_file? {
            toml::Value::String(text) => Some(text.trim().to_owned()),
            toml::Value::Integer(number) => Some(number.to_string()),
            toml::Value::Boolean(flag) => Some(flag.to_string()),
            toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => {
                Some(items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(","))
            }
            _ => {
                self.problems.push(format!(
                    "{}: must be a text, a number, true or false, or a list of texts",
                    key.to_lowercase()
                ));
                None
            }
        }
    }

    /// The value that was given, or the default of [`KEYS`](super::keys::KEYS).
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.given(key).or_else(|| find(key)?.default.map(str::to_owned))
    }

    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// The value of a key that has a default.
    pub(super) fn text_or_default(&mut self, key: &'static str) -> String {
        self.text(key).unwrap_or_default()
    }

    /// What is blank, or a list without items, is missing.
    pub(super) fn needed(&mut self, key: &'static str) -> String {
        self.text(key).filter(|text| !items(text).is_empty()).unwrap_or_else(|| {
            let about = find(key).map_or("", |key| key.about);
            self.problems.push(format!("{key} is missing: {about}"));
            String::new()
        })
    }

    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        items(&self.needed(key))
    }

    /// An optional list.
    pub(super) fn names(&mut self, key: &'static str) -> Vec<String> {
        items(&self.text(key).unwrap_or_default())
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(key)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.problems.push(format!(
                "{key}: must be a whole number from {} to {}",
                range.start(),
                range.end()
            ));
        }
        number
    }

    pub(super) fn port(&mut self, key: &'static str) -> u16 {
        self.number(key, 1..=65_535).and_then(|number| u16::try_from(number).ok()).unwrap_or(1)
    }

    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        match self.text(key).as_deref() {
            Some("true" | "1" | "yes") => true,
            None | Some("false" | "0" | "no") => false,
            Some(_) => {
                self.problems.push(format!("{key}: must be true or false"));
                false
            }
        }
    }

    /// One of some names.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.problems.push(format!("{key}: must be {}", names.join(" or ")));
        }
        chosen
    }

    /// Notes a problem with a host that customers are given: it becomes a part of commands and of
    /// `known_hosts` lines.
    pub(super) fn check_host(&mut self, key: &'static str, host: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_name = !host.starts_with('-') && host.chars().all(is_plain);
        if !is_name && host.parse::<Ipv6Addr>().is_err() {
            self.problem(format!(
                "{key}: must be a name or an address, without a port or brackets"
            ));
        }
    }

    /// The address of a server that this service sends to.
    pub(super) fn endpoint(&mut self, key: &'static str) -> Option<String> {
        let url = self.text(key)?;
        let good = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .is_some_and(|rest| !rest.is_empty());
        if !good || url.contains(['?', '#', '@', ' ']) {
            self.problems.push(format!("{key}: must be like http://collector:4318"));
        }
        Some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::part;

    fn problems<T>(
        file: &str,
        environment: &[(&str, &str)],
        read: impl FnOnce(&mut Reader) -> T,
    ) -> Vec<String> {
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        part(Some(file), environment, read).err().map_or_else(Vec::new, |found| found.0)
    }

    #[test]
    fn a_host_that_customers_are_given_is_a_name_or_an_address_alone() {
        let of_pods =
            |host: &str| problems("", &[("SSH_HOST", host)], |reader| drop(reader.ssh_host()));
        let of_gateway = |host: &str| {
            problems("", &[("GATEWAY_SSH_HOST", host)], |reader| drop(reader.gateway_host()))
        };
        for host in ["node-1.example.com", "a_b", "192.0.2.7", "2001:db8::7"] {
            assert_eq!((of_pods(host), of_gateway(host)), (vec![], vec![]), "{host}");
        }
        let problem = |key: &str| {
            vec![format!("{key}: must be a name or an address, without a port or brackets")]
        };
        for host in [
            "http://x",
            "node.example.com:22",
            "192.0.2.7:22",
            "[::1]:22",
            "a b",
            "-oProxyCommand=x",
        ] {
            let expected = (problem("SSH_HOST"), problem("GATEWAY_SSH_HOST"));
            assert_eq!((of_pods(host), of_gateway(host)), expected, "{host}");
        }
    }

    /// Otherwise the service would start without mints, or with a key that nobody has stored.
    #[test]
    fn what_is_needed_and_blank_in_the_file_is_missing() {
        for (file, key) in [
            ("nostr_private_key = \"\"", "NOSTR_PRIVATE_KEY"),
            ("ssh_host = \" \"", "SSH_HOST"),
            ("whitelisted_mints = []", "WHITELISTED_MINTS"),
            ("nostr_relays = \",\"", "NOSTR_RELAYS"),
        ] {
            let found = problems(file, &[], |reader| reader.needed(key));
            assert_eq!(found.len(), 1, "{file}: {found:?}");
            assert!(found.iter().all(|it| it.starts_with(&format!("{key} is missing: "))));
        }
    }
}
