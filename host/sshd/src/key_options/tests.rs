//! What lines of `authorized_keys` mean.
#![cfg(test)]

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICjLqWeSzq2OwTaIeyhrLUZPz2mUb4eczHumbTzLrPpf";

fn options(text: &str) -> Option<KeyOptions> {
    parse_line(format!("{text} {KEY} me@home").as_bytes()).map(|(options, _)| options)
}

fn local() -> IpAddr {
    "127.0.0.1".parse().unwrap()
}

#[test]
fn a_line_is_a_key_with_or_without_options() {
    let own = parse_key(KEY).unwrap();
    for line in [
        KEY.to_owned(),
        format!("  {KEY}\t a comment\r"),
        KEY.replace(' ', "\t "),
        format!("no-pty {KEY}"),
        format!("no-pty\t  {KEY} me@home"),
        format!("command=\"a \\\" b\" {KEY}"),
    ] {
        assert_eq!(parse_line(line.as_bytes()).unwrap().1.key_data(), own.key_data(), "{line}");
    }
    let comment = [KEY.as_bytes(), &b" \xe9"[..]].concat();
    assert!(parse_line(&comment).is_some(), "a comment need not be UTF-8");
    for line in ["", "#", "pty", "command=\"x", &format!("# {KEY}"), &format!("#{KEY}")] {
        assert!(parse_line(line.as_bytes()).is_none(), "{line}");
    }
    let bytes = [&b"command=\"\xe9\" "[..], KEY.as_bytes()].concat();
    assert!(parse_line(&bytes).is_none(), "options are UTF-8");
}

#[test]
fn flags_are_set_in_their_order_whatever_their_case() {
    let allowed = |text: &str| {
        let it = options(text).unwrap();
        (it.allows_terminal, it.allows_agent, it.allows_forwarding)
    };
    for (text, expected) in [
        ("user-rc", (true, true, true)),
        ("restrict", (false, false, false)),
        ("Restrict,PTY", (true, false, false)),
        ("pty,restrict", (false, false, false)),
        ("no-pty", (false, true, true)),
        ("no-pty,pty", (true, true, true)),
        ("no-agent-forwarding,no-X11-forwarding,no-user-rc", (true, false, true)),
        ("restrict,agent-forwarding", (false, true, false)),
        ("no-port-forwarding,no-touch-required", (true, true, false)),
        (",,restrict,port-forwarding,", (false, false, true)),
    ] {
        assert_eq!(allowed(text), expected, "{text}");
    }
}

#[test]
fn what_is_unknown_or_malformed_makes_a_line_void() {
    for text in [
        "unknown",
        "ptyx",
        "no-",
        "no-restrict",
        "no-cert-authority",
        "pty=\"yes\"",
        "pty;restrict",
        "command",
        "command=x",
        "command=\"a\"b",
        "command=\"a\",command=\"b\"",
        "from=\"*\",from=\"*\"",
        "unknown=\"x\"",
        "environment=\"X\"",
        "environment=\"=1\"",
        "environment=\"A-B=1\"",
        "expiry-time=\"never\"",
        "expiry-time=\"19700101\"",
        "permitopen=\"host\"",
        "permitopen=\"host:0\"",
        "permitopen=\"host:+1\"",
        "permitopen=\"host:65536\"",
        "permitopen=\"[::1:80\"",
        "permitopen=\"[::1]80\"",
        "permitlisten=\"host\"",
        "permitlisten=\"\"",
        "tunnel=\"x\"",
        // What could not be enforced.
        "command=\"internal-sftp -R\"",
    ] {
        assert!(options(text).is_none(), "{text}");
    }
}

#[test]
fn a_command_has_its_quotes() {
    for (text, expected) in [
        (r#"command="""#, ""),
        (r#"command="echo a, b""#, "echo a, b"),
        (r#"COMMAND="echo \"a\" \n",no-pty"#, r#"echo "a" \n"#),
        (r#"command="internal-sftp""#, "internal-sftp"),
    ] {
        assert_eq!(options(text).unwrap().command.as_deref(), Some(expected), "{text}");
    }
    assert_eq!(options("pty,environment=\"A_1=x=y\",tunnel=\"0\"").unwrap().command, None);
}

#[test]
fn a_key_logs_in_from_its_addresses_until_its_end() {
    let admits = |text: &str, now| options(text).unwrap().admits(local(), now);
    assert!(admits("pty", 0) && admits("from=\"127.0.0.0/8\"", 0));
    assert!(!admits("from=\"127.0.0.0/8,!127.0.0.1\"", 0) && !admits("from=\"\"", 0));
    let end = "expiry-time=\"20000101Z\"";
    assert!(admits(end, 946_684_800) && !admits(end, 946_684_801));
    let both = "expiry-time=\"20990101\",expiry-time=\"20000101\"";
    assert!(!admits(both, 946_684_801), "the earlier one counts");
    assert!(!admits("cert-authority", 0), "that is no key of its own");
    assert!(!admits("principals=\"me\"", 0));
}

#[test]
fn ports_are_limited_to_those_that_are_permitted() {
    let it = options("permitopen=\"localhost:80\",permitopen=\"[::1]:*\"").unwrap();
    assert!(it.allows_open("localhost", 80) && it.allows_open("::1", 1_234));
    assert!(!it.allows_open("localhost", 81) && !it.allows_open("LOCALHOST", 80));
    assert!(!it.allows_open("127.0.0.1", 80) && !it.allows_open_unix("/s"));
    assert!(it.allows_listen("localhost", 1), "that is another list");
    let it = options("permitopen=\"*:*\"").unwrap();
    assert!(it.allows_open("any.example", 1) && it.allows_open_unix("/s"));
    let it = options("permitlisten=\"8080\",permitlisten=\"local*:*\"").unwrap();
    assert!(it.allows_listen("", 8_080) && it.allows_listen("LocalHost", 0));
    assert!(!it.allows_listen("", 8_081) && !it.allows_listen("127.0.0.1", 0));
    assert!(it.allows_open("localhost", 1) && it.allows_open_unix("/s"));
    let none = options("restrict,permitopen=\"*:*\",permitlisten=\"*:*\"").unwrap();
    assert!(!none.allows_open("localhost", 80) && !none.allows_open_unix("/s"));
    assert!(!none.allows_listen("localhost", 80));
}

#[test]
fn lines_and_lists_are_bounded() {
    let padded = |bytes| format!("command=\"{}\"", "x".repeat(bytes));
    assert!(options(&padded(16_000)).is_some() && options(&padded(MAX_LINE_BYTES)).is_none());
    let permits = |count| vec!["permitopen=\"a:1\""; count].join(",");
    assert!(options(&permits(MAX_PERMITS)).is_some());
    assert!(options(&permits(MAX_PERMITS + 1)).is_none());
    let from = |count| format!("from=\"{}\"", vec!["*"; count].join(","));
    assert!(options(&from(256)).is_some() && options(&from(257)).is_none());
    // Pieces of lines, and bytes in all places, end in nothing worse than a void line.
    let line = format!("command=\"a\\\" b\",from=\"!::1,*\",expiry-time=\"20990101\" {KEY} \u{e9}");
    for (index, _) in line.bytes().enumerate() {
        for byte in [0, b'"', b'\\', b',', b'=', b' ', 0xe9] {
            let mut bytes = line.as_bytes().to_vec();
            bytes[index] = byte;
            let _ = parse_line(&bytes);
            let _ = parse_line(&bytes[..index]);
        }
    }
}

#[test]
fn a_security_key_that_must_verify_its_user_does_not_log_in() {
    let data = "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICjLqWeSzq2OwTaI\
                eyhrLUZPz2mUb4eczHumbTzLrPpfAAAABHNzaDo=";
    let key = format!("sk-ssh-ed25519@openssh.com {data}");
    let line = |options: &str| parse_line(format!("{options} {key}").as_bytes());
    assert!(line("touch-required").is_some() && line("no-verify-required").is_some());
    assert!(line("verify-required").is_none());
    assert!(options("verify-required").is_some(), "keys of other kinds have nothing to verify");
}
