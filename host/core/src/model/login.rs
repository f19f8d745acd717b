//! The customer's login, validated once: other crates rely on it.

use crate::limits;
use crate::model::ids::{Username, random_name};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;

/// How the customer logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: Username,
    /// The password; none: only the key logs in.
    pub password: Option<Secret>,
    /// One public key in OpenSSH's form.
    pub public_key: Option<String>,
}

/// What a customer sends of their login, before it is validated.
#[derive(Clone, Copy, Default)]
pub struct LoginFields<'a> {
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub public_key: Option<&'a str>,
}

impl Login {
    /// The files that a pod's SSH server reads it from, by name, with the whole content of each.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            Some(("username", self.username.as_str())),
            self.password.as_ref().map(|password| ("password", password.expose())),
            self.public_key.as_deref().map(|key| ("authorized_key", key)),
        ]
        .into_iter()
        .flatten()
    }

    /// A login with these. With neither password nor key a password of 119 random bits is made;
    /// with a key there is none that was not requested.
    #[must_use]
    pub fn new(username: Username, password: Option<Secret>, public_key: Option<String>) -> Self {
        let password = password.or_else(|| public_key.is_none().then(random_password));
        Self { username, password, public_key }
    }

    /// Validates the fields and fills in missing ones: the user `user`, and a password as
    /// [`Login::new`] does.
    ///
    /// # Errors
    /// `invalid_request` that names the field and the rule.
    pub fn check(fields: LoginFields<'_>) -> Result<Self, Refusal> {
        let LoginFields { username, password, public_key } = fields;
        Ok(Self::new(
            username.map(check_username).transpose()?.unwrap_or_default(),
            password.map(check_password).transpose()?,
            public_key.map(check_public_key).transpose()?,
        ))
    }
}

/// 119 random bits, in characters that nobody mistakes for others.
fn random_password() -> Secret {
    const ALPHABET: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    Secret::new(random_name(20, ALPHABET))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorType::InvalidRequest, message)
}

fn check_username(name: &str) -> Result<Username, Refusal> {
    Username::parse(name).map_err(|error| invalid(format!("ssh_username {error}")))
}

fn check_password(password: &str) -> Result<Secret, Refusal> {
    let length = password.chars().count();
    if !limits::PASSWORD_CHARS.contains(&length) || password.chars().any(char::is_control) {
        return Err(invalid(
            "ssh_password must be 8 to 128 characters without control characters; leave it out and one is made for you",
        ));
    }
    Ok(Secret::new(password))
}

fn check_public_key(key: &str) -> Result<String, Refusal> {
    let key = key.trim();
    let mut fields = key.split(' ');
    let kind = fields.next().unwrap_or_default();
    let data = fields.next().unwrap_or_default();
    // Which kinds log in is for the pod's server to say, in the dry run.
    let is_kind = !kind.is_empty()
        && kind.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'@'));
    let base64 = !data.is_empty()
        && data.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'='));
    if !is_kind
        || !base64
        || key.len() > limits::PUBLIC_KEY_BYTES
        || key.chars().any(char::is_control)
    {
        return Err(invalid(
            "ssh_public_key must be one line as in an OpenSSH .pub file: its type, then its data in base64",
        ));
    }
    Ok(format!("{kind} {data}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_username(name: &str) -> Result<Login, Refusal> {
        Login::check(LoginFields { username: Some(name), ..LoginFields::default() })
    }

    fn with_password(password: &str) -> Result<Login, Refusal> {
        Login::check(LoginFields { password: Some(password), ..LoginFields::default() })
    }

    fn with_key(key: &str) -> Result<Login, Refusal> {
        Login::check(LoginFields { public_key: Some(key), ..LoginFields::default() })
    }

    #[test]
    fn a_shell_or_another_field_is_never_reached_by_a_name() {
        for bad in [
            "a;rm",
            "$(x)",
            "root",
            "-x",
            "a:b",
            "a\nb",
            "",
            "Ünal",
            "A",
            "0a",
            &"a".repeat(33),
            "daemon",
            "a b",
            "a/../b",
            "a\0",
        ] {
            let refused = with_username(bad).unwrap_err();
            assert_eq!(refused.code, ErrorType::InvalidRequest, "{bad:?}");
        }
        for good in ["alice", "_x", "a-b_c9", &"a".repeat(32)] {
            assert_eq!(with_username(good).unwrap().username.as_str(), good);
        }
    }

    #[test]
    fn passwords_keep_every_printable_character() {
        let odd = r#"'"$;: `\äö"#;
        let login = with_password(odd).unwrap();
        assert_eq!(login.password, Some(Secret::new(odd)));
        for bad in
            ["short", "new\nline-long", "tab\tlong-enough", "\u{0}aaaaaaaaa", &"p".repeat(129)]
        {
            assert!(with_password(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn missing_fields_get_defaults() {
        let [a, b] = [(); 2].map(|()| Login::check(LoginFields::default()).unwrap());
        assert_eq!(a.username.as_str(), "user");
        assert_eq!(a.password.as_ref().unwrap().expose().len(), 20);
        assert_ne!(a.password, b.password);
    }

    #[test]
    fn who_sends_a_key_has_no_password_but_their_own() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA";
        assert_eq!(with_key(key).unwrap().password, None);
        let (password, public_key) = (Some("a good password"), Some(key));
        let both = Login::check(LoginFields { username: None, password, public_key }).unwrap();
        assert_eq!(both.password, Some(Secret::new("a good password")));
    }

    #[test]
    fn a_key_is_one_line_without_options() {
        let good = with_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@home\n").unwrap();
        assert_eq!(good.public_key.unwrap(), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA");
        for bad in [
            "command=\"x\" ssh-rsa AAAA",
            "ssh-ed25519",
            "ssh-ed25519 AA\nssh-rsa BB",
            "ssh-ed25519 $(x)",
        ] {
            assert!(with_key(bad).is_err(), "{bad:?}");
        }
    }
}
