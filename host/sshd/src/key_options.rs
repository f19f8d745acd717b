//! Lines of `~/.ssh/authorized_keys`: a key, and before it options that restrict its sessions, as in
//! sshd(8), AUTHORIZED_KEYS FILE FORMAT.
//!
//! An option that is unknown or malformed, or that nothing here could enforce, makes the line void:
//! its key does not log in.

use crate::date;
use crate::keys::parse_key;
use crate::patterns::{has_address, is_bounded, is_match};
use russh::keys::{Algorithm, PublicKey};
use std::net::IpAddr;

/// The command that is the server's own `sftp`, as in OpenSSH's configuration.
pub(crate) const INTERNAL_SFTP: &str = "internal-sftp";

/// A longer line is void.
const MAX_LINE_BYTES: usize = 16_384;
/// `permitopen` and `permitlisten` of one key, each.
const MAX_PERMITS: usize = 256;

/// What a session of a key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyOptions {
    /// Runs in place of what the client asks for.
    pub(crate) command: Option<String>,
    pub(crate) allows_terminal: bool,
    pub(crate) allows_agent: bool,
    pub(crate) allows_forwarding: bool,
    /// All that may be connected to, if there are any.
    open: Vec<Permit>,
    /// All that may be listened on, if there are any.
    listen: Vec<Permit>,
    /// The addresses of clients.
    from: Option<String>,
    /// The last second, since 1970.
    expires: Option<u64>,
    /// The line is about certificates, which are not known here, and no key of its own.
    is_of_certificates: bool,
    /// A security key must have verified its user.
    needs_verification: bool,
}

/// Everything is allowed.
impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            command: None,
            allows_terminal: true,
            allows_agent: true,
            allows_forwarding: true,
            open: Vec::new(),
            listen: Vec::new(),
            from: None,
            expires: None,
            is_of_certificates: false,
            needs_verification: false,
        }
    }
}

/// Of `permitopen` or `permitlisten`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Permit {
    host: String,
    /// Any without one.
    port: Option<u16>,
}

impl Permit {
    /// `host:port`, `[address]:port`, each with `*` for any.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(text) => {
                let (host, rest) = text.split_once(']')?;
                (host, rest.strip_prefix([':', '/'])?)
            }
            None => text.split_once([':', '/'])?,
        };
        let is_number = port.bytes().all(|c| c.is_ascii_digit());
        let port = match port {
            "*" => None,
            number => Some(number.parse::<u16>().ok().filter(|port| is_number && *port > 0)?),
        };
        Some(Self { host: host.to_owned(), port })
    }

    fn has_port(&self, port: u32) -> bool {
        self.port.is_none_or(|own| u32::from(own) == port)
    }
}

/// The key of a line and its options; none of a line that is void, empty or a comment.
pub(crate) fn parse_line(line: &[u8]) -> Option<(KeyOptions, PublicKey)> {
    let line = line.trim_ascii();
    if line.len() > MAX_LINE_BYTES {
        return None;
    }
    if let Some(key) = key(line) {
        return Some((KeyOptions::default(), key));
    }
    let (options, rest) = line.split_at_checked(options_end(line)?)?;
    let options = KeyOptions::parse(std::str::from_utf8(options).ok()?)?;
    let key = key(rest)?;
    let is_security_key =
        matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
    // Nothing here gets to know whether it has.
    (!(options.needs_verification && is_security_key)).then_some((options, key))
}

/// A key at the beginning, whatever its comment is.
fn key(line: &[u8]) -> Option<PublicKey> {
    let fields = line.split(|c| matches!(c, b' ' | b'\t')).filter(|field| !field.is_empty());
    let mut fields = fields.map(|field| std::str::from_utf8(field).ok());
    let (kind, data) = (fields.next()??, fields.next()??);
    parse_key(&format!("{kind} {data}")).ok()
}

/// The first blank that is not in quotes; none if a quote is left open.
fn options_end(line: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, byte) in line.iter().enumerate() {
        match byte {
            b' ' | b'\t' if !is_quoted => return Some(index),
            b'"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = *byte == b'\\';
    }
    None
}

/// The value in quotes at the beginning, and what follows it. Only a quote is escaped.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        match before.strip_suffix('\\') {
            Some(before) => {
                value.push_str(before);
                value.push('"');
                rest = after;
            }
            None => {
                value.push_str(before);
                return Some((value, after));
            }
        }
    }
}

/// Sets what may be set once.
fn set_once(place: &mut Option<String>, value: String) -> Option<()> {
    match place {
        Some(_) => None,
        None => {
            *place = Some(value);
            Some(())
        }
    }
}

fn add_permit(permits: &mut Vec<Permit>, text: &str) -> Option<()> {
    let has_room = permits.len() < MAX_PERMITS;
    permits.push(Permit::parse(text).filter(|_| has_room)?);
    Some(())
}

/// `NAME=value`
fn is_variable(text: &str) -> bool {
    let name = text.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    })
}

/// `any`, or numbers of devices, the client's too.
fn is_tunnel(text: &str) -> bool {
    let is_device = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        is_number || text == "any"
    };
    let (own, client) = text.split_once(':').unwrap_or((text, "any"));
    is_device(own) && is_device(client)
}

impl KeyOptions {
    fn parse(text: &str) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = text;
        loop {
            rest = options.read_one(rest)?;
            if rest.is_empty() {
                return Some(options);
            }
            rest = rest.strip_prefix(',')?;
        }
    }

    /// Reads the option at the beginning; what follows it.
    fn read_one<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let (name, rest) = text.split_at_checked(text.find([',', '=']).unwrap_or(text.len()))?;
        let name = name.to_ascii_lowercase();
        match rest.strip_prefix('=') {
            Some(rest) => {
                let (value, rest) = quoted(rest)?;
                self.set_value(&name, value)?;
                Some(rest)
            }
            None => {
                self.set_flag(&name)?;
                Some(rest)
            }
        }
    }

    fn set_flag(&mut self, name: &str) -> Option<()> {
        let (name, is_on) = match name.strip_prefix("no-") {
            Some(name) => (name, false),
            None => (name, true),
        };
        match (name, is_on) {
            ("restrict", true) => {
                self.allows_terminal = false;
                self.allows_agent = false;
                self.allows_forwarding = false;
            }
            ("pty", is_on) => self.allows_terminal = is_on,
            ("agent-forwarding", is_on) => self.allows_agent = is_on,
            ("port-forwarding", is_on) => self.allows_forwarding = is_on,
            ("verify-required", is_on) => self.needs_verification = is_on,
            ("cert-authority", true) => self.is_of_certificates = true,
            // X11 and `~/.ssh/rc` are not here; a touch is up to the security key.
            ("x11-forwarding" | "user-rc" | "touch-required", _) | ("", true) => {}
            _ => return None,
        }
        Some(())
    }

    fn set_value(&mut self, name: &str, value: String) -> Option<()> {
        match name {
            "command" => {
                // With arguments, among them that for reading only, which nothing would hold to.
                let has_arguments = value
                    .strip_prefix(INTERNAL_SFTP)
                    .is_some_and(|rest| rest.starts_with([' ', '\t']));
                set_once(&mut self.command, value).filter(|()| !has_arguments)?;
            }
            "from" => {
                let is_bounded = is_bounded(&value);
                set_once(&mut self.from, value).filter(|()| is_bounded)?;
            }
            "principals" => self.is_of_certificates = true,
            "expiry-time" => {
                let end = date::absolute(&value)?;
                self.expires = Some(self.expires.map_or(end, |earlier| earlier.min(end)));
            }
            // `PermitUserEnvironment no`
            "environment" => return is_variable(&value).then_some(()),
            "permitopen" => add_permit(&mut self.open, &value)?,
            "permitlisten" if value.contains(':') => add_permit(&mut self.listen, &value)?,
            "permitlisten" => add_permit(&mut self.listen, &format!("*:{value}"))?,
            "tunnel" => return is_tunnel(&value).then_some(()),
            _ => return None,
        }
        Some(())
    }

    /// Whether the key logs in from this address at this time, in seconds since 1970.
    pub(crate) fn admits(&self, client: IpAddr, now: u64) -> bool {
        !self.is_of_certificates
            && self.expires.is_none_or(|end| now <= end)
            && self.from.as_ref().is_none_or(|list| has_address(list, client))
    }

    /// Whether a client may connect to a port.
    pub(crate) fn allows_open(&self, host: &str, port: u32) -> bool {
        let is_own = |permit: &Permit| permit.host == "*" || permit.host == host;
        let mut permits = self.open.iter();
        self.allows_forwarding
            && (self.open.is_empty() || permits.any(|it| is_own(it) && it.has_port(port)))
    }

    /// Whether a client may connect to a Unix socket.
    pub(crate) fn allows_open_unix(&self, path: &str) -> bool {
        let is_own = |permit: &Permit| permit.host == "*" || permit.host == path;
        let mut permits = self.open.iter();
        self.allows_forwarding
            && (self.open.is_empty() || permits.any(|it| is_own(it) && it.port.is_none()))
    }

    /// Whether a client may listen on a port; those of Unix sockets are not in `permitlisten`.
    pub(crate) fn allows_listen(&self, host: &str, port: u32) -> bool {
        let host = host.to_ascii_lowercase();
        let mut permits = self.listen.iter();
        self.allows_forwarding
            && (self.listen.is_empty()
                || permits.any(|it| is_match(&it.host, &host) && it.has_port(port)))
    }
}

#[cfg(test)]
mod tests;
