//! The one account of a server.

use crate::image::Image;
use crate::key_options::{KeyOptions, parse_line};
use crate::keys::{Error, parse_keys};
use paygress_regular_file::open_regular;
use russh::keys::PublicKey;
use std::ffi::OsString;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of the user's own file.
const MAX_AUTHORIZED_KEYS_BYTES: u64 = 256 * 1_024;

/// The only user of a server.
#[derive(Clone, Debug)]
pub struct Account {
    pub username: String,
    /// Other names that log in as well.
    pub aliases: Vec<String>,
    pub password: Password,
    /// Public keys that are accepted as well as the password, and as those of the user's own
    /// `.ssh/authorized_keys`.
    pub keys: Vec<PublicKey>,
    pub shell: PathBuf,
    /// The working directory of new sessions.
    pub home: PathBuf,
    /// What programs get besides the variables of a login. It may be the whole environment of a
    /// process only where that has no secrets.
    pub environment: Vec<(OsString, OsString)>,
}

/// A password, or none: never printed, compared in constant time.
#[derive(Clone)]
pub struct Password(Option<String>);

impl Password {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Some(text.into()))
    }

    /// Only keys log in.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) const fn is_set(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn matches(&self, attempt: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_ref().is_some_and(|own| own.as_bytes().ct_eq(attempt.as_bytes()).into())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Account {
    /// A user of `/bin/sh` without keys, other names and variables.
    #[must_use]
    pub fn new(username: impl Into<String>, password: Password, home: impl Into<PathBuf>) -> Self {
        Self {
            username: username.into(),
            aliases: Vec::new(),
            password,
            keys: Vec::new(),
            shell: "/bin/sh".into(),
            home: home.into(),
            environment: Vec::new(),
        }
    }

    /// Reads the files `username`, `password` and, if it exists, `authorized_key` of a directory.
    /// The whole content of the first two counts, a newline at its end included; the last one has a
    /// key in each line. With a key the password may be missing. All else is the image's.
    ///
    /// # Errors
    /// [`Error::LoginFile`], [`Error::KeyKind`] or [`Error::Key`].
    pub fn read(directory: &Path, image: &Image) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = directory.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Error::LoginFile { path, source }),
            }
        };
        let missing = |name: &str| Error::LoginFile {
            path: directory.join(name),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let keys = read("authorized_key")?.map_or(Ok(Vec::new()), |text| parse_keys(&text))?;
        let password = match read("password")? {
            Some(text) => Password::new(text),
            None if keys.is_empty() => return Err(missing("password")),
            None => Password::none(),
        };
        let username = read("username")?.ok_or_else(|| missing("username"))?;
        let Image { shell, home, environment, .. } = image.clone();
        Ok(Self { username, aliases: image.aliases(), password, keys, shell, home, environment })
    }

    pub(crate) fn is_named(&self, user: &str) -> bool {
        user == self.username || self.aliases.iter().any(|alias| alias == user)
    }

    /// What this key may do, if it logs in from this address, now. One of several lines with it is
    /// the first that lets it in. Reads the user's own file: it may block.
    pub(crate) fn options_of(&self, key: &PublicKey, client: IpAddr) -> Option<KeyOptions> {
        let is_own = |own: &PublicKey| own.key_data() == key.key_data();
        if self.keys.iter().any(is_own) {
            return Some(KeyOptions::default());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let file = self.authorized_keys();
        let lines = file.split(|byte| *byte == b'\n').filter_map(parse_line);
        let mut own = lines.filter(|(_, own)| is_own(own)).map(|(options, _)| options);
        own.find(|options| options.admits(client, now))
    }

    /// The user's own file, if nobody else can write it.
    fn authorized_keys(&self) -> Vec<u8> {
        let read = || -> std::io::Result<Vec<u8>> {
            let (file, metadata) = open_regular(&self.home.join(".ssh/authorized_keys"))?;
            let mut text = Vec::new();
            if metadata.mode() & 0o022 == 0 {
                file.take(MAX_AUTHORIZED_KEYS_BYTES).read_to_end(&mut text)?;
            }
            Ok(text)
        };
        read().unwrap_or_default()
    }
}
