//! This machine: whether a service runs already, its ports, its disks, its clock.

use super::report::{Area, Check, Group};
use crate::config::{Config, GatewayProcess};
use crate::open_files;
use paygress_core::limits;
use paygress_core::listen_addresses;
use paygress_core::model::units::ClockOffset;
use std::fmt;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

const SERVICE: Area = Area::new(Group::Host, "service");
const PORTS: Area = Area::new(Group::Host, "ports");
const FILES: Area = Area::new(Group::Host, "open files");
const DISK: Area = Area::new(Group::Host, "disk");
const CLOCK: Area = Area::new(Group::Host, "clock");

/// How long a service's socket may take.
const SOCKET: Duration = Duration::from_secs(5);
/// Less than this many times what orders need is little.
const LITTLE_ROOM: u64 = 8;
/// A header has whole seconds, and its way takes time.
const CLOCK_AGREES: u64 = 5;
/// Signatures of requests count for so long.
const CLOCK_DIFFERS: u64 = 60;

/// Whether a service with this configuration runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    Yes,
    No,
}

pub(super) async fn is_served(admin_socket: &Path) -> Served {
    match timeout(SOCKET, UnixStream::connect(admin_socket)).await {
        Ok(Ok(_)) => Served::Yes,
        Ok(Err(_)) | Err(_) => Served::No,
    }
}

pub(super) fn checks(config: &Config, served: Served) -> Vec<Check> {
    let service = match served {
        Served::Yes => SERVICE.ok("a service runs with this ADMIN_SOCKET; it is left alone"),
        Served::No => SERVICE.ok("no service runs with this ADMIN_SOCKET"),
    };
    let ports = match served {
        Served::Yes => vec![PORTS.ok("the service has them")],
        Served::No => own_ports(config),
    };
    let needed = open_files::needed_by_service(config);
    let files = file_limit(open_files::limit_below(needed), needed);
    [vec![service], ports, vec![files, disk(config)]].concat()
}

/// The sockets that the service is going to open.
fn own_ports(config: &Config) -> Vec<Check> {
    let http = config.http.as_ref().map(|http| ("BIND_ADDR", http.bind));
    // Another process may serve it already.
    let gateway = config.gateway.as_ref();
    let gateway = gateway.filter(|gateway| gateway.process == GatewayProcess::Service);
    let jump_host = gateway.and_then(|gateway| gateway.jump_host.as_ref());
    let jump_host = jump_host.map(|jump_host| ("GATEWAY_SSH_LISTEN", jump_host.listen));
    let iroh = gateway.and_then(|gateway| gateway.iroh.as_ref());
    let iroh = iroh.into_iter().flat_map(|iroh| iroh.bind.iter().copied());
    let tcp = http
        .into_iter()
        .chain(jump_host)
        .map(|(setting, address)| free(setting, address, bind(address)));
    let udp =
        iroh.map(|address| free("GATEWAY_IROH_BIND", address, UdpSocket::bind(address).map(drop)));
    tcp.chain(udp).collect()
}

fn bind(address: SocketAddr) -> std::io::Result<()> {
    TcpListener::bind(&listen_addresses(address)[..]).map(drop)
}

fn free(setting: &str, address: SocketAddr, bound: std::io::Result<()>) -> Check {
    match bound {
        Ok(()) => PORTS.ok(format!("{setting}: {address} is free")),
        Err(error) => PORTS.fail(
            format!("{setting}: {address} cannot be listened on: {error}"),
            format!("end what has it, or set {setting} to another one"),
        ),
    }
}

/// What it means that the limit is lower than what is needed. A service that is started as this program
/// was has the same.
fn file_limit(lower: Option<u64>, needed: u64) -> Check {
    match lower {
        None => FILES.ok(format!("the limit of file descriptors is at least {needed}")),
        Some(limit) => FILES.warn(
            format!("{limit} file descriptors are the limit, and all connections need {needed}"),
            "raise the hard limit where the service is started: LimitNOFILE in a unit of systemd",
        ),
    }
}

/// What is free where this file is, or will be.
fn free_bytes(path: &Path) -> Option<u64> {
    let disk = path.ancestors().find_map(|path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::statvfs(path).ok()
    })?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn disk(config: &Config) -> Check {
    let paths = [&config.ledger, &config.wallet, &config.policy_state, &config.policy_cache];
    let free = paths.iter().filter_map(|path| Some((free_bytes(path)?, path.display())));
    let Some((least, path)) = free.min_by_key(|(bytes, _)| *bytes) else {
        return DISK.warn("the room on the disks is not known", "look with `df`");
    };
    room(least, &path)
}

/// What it means that so many bytes are free for this file.
fn room(least: u64, path: &impl fmt::Display) -> Check {
    let mebibytes = least.checked_div(1 << 20).unwrap_or(0);
    let text = format!("{mebibytes} MiB are free for {path}");
    let remedy = "make room: below 64 MiB new orders are refused";
    if least <= limits::DISK_RESERVE {
        DISK.fail(text, remedy)
    } else if least <= limits::DISK_RESERVE.saturating_mul(LITTLE_ROOM) {
        DISK.warn(text, remedy)
    } else {
        DISK.ok(text)
    }
}

/// Whose clock is compared with this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockOf<'a> {
    ApiServer,
    Mint(&'a str),
}

/// What it means that a clock is so far ahead. A mint's may be wrong itself.
pub(super) fn clock(of: ClockOf<'_>, ahead: ClockOffset) -> Check {
    let name = match of {
        ClockOf::ApiServer => "the API server",
        ClockOf::Mint(mint) => mint,
    };
    let off = ahead.0.unsigned_abs();
    let text = format!("the clock of {name} differs from this machine's by {} s", ahead.0);
    let remedy = "synchronise this machine's clock (NTP); if it is right, theirs is wrong";
    match of {
        _ if off <= CLOCK_AGREES => CLOCK.ok(format!("it agrees with that of {name}")),
        ClockOf::ApiServer if off > CLOCK_DIFFERS => CLOCK.fail(text, remedy),
        ClockOf::ApiServer | ClockOf::Mint(_) => CLOCK.warn(text, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    #[test]
    fn a_clock_may_differ_by_a_little() {
        let mint = ClockOf::Mint("https://mint.example");
        for (of, ahead, outcome) in [
            (ClockOf::ApiServer, 0, Outcome::Ok),
            (ClockOf::ApiServer, -5, Outcome::Ok),
            (ClockOf::ApiServer, 6, Outcome::Warn),
            (ClockOf::ApiServer, -61, Outcome::Fail),
            (mint, 61, Outcome::Warn),
        ] {
            let check = clock(of, ClockOffset(ahead));
            assert_eq!(check.outcome, outcome, "{check:?}");
            assert_eq!(check.remedy.is_some(), outcome != Outcome::Ok);
        }
    }

    #[test]
    fn a_port_that_is_taken_names_its_setting() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let check = free("BIND_ADDR", address, bind(address));
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(check.text.starts_with(&format!("BIND_ADDR: {address}")), "{check:?}");
    }

    #[test]
    fn a_limit_of_file_descriptors_that_is_low_is_a_warning() {
        assert_eq!(file_limit(None, 4_000).outcome, Outcome::Ok);
        let low = file_limit(Some(1_024), 4_000);
        assert_eq!(low.outcome, Outcome::Warn);
        assert!(low.text.contains("1024") && low.text.contains("4000"), "{low:?}");
    }

    #[test]
    fn a_disk_is_full_where_orders_are_refused_and_nearly_full_before() {
        let little = limits::DISK_RESERVE * LITTLE_ROOM;
        for (free, outcome) in [
            (0, Outcome::Fail),
            (limits::DISK_RESERVE, Outcome::Fail),
            (limits::DISK_RESERVE + 1, Outcome::Warn),
            (little, Outcome::Warn),
            (little + 1, Outcome::Ok),
        ] {
            let check = room(free, &"data/ledger.sqlite");
            assert_eq!(check.outcome, outcome, "{check:?}");
            let text = format!("{} MiB are free for data/ledger.sqlite", free >> 20);
            assert_eq!(check.text, text);
            let remedy = check.remedy.unwrap_or_default();
            assert_eq!(remedy.contains("make room"), outcome != Outcome::Ok, "{remedy}");
        }
    }

    #[test]
    fn the_room_for_a_file_that_is_not_there_yet_is_known() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_bytes(&directory.path().join("a/b/ledger.sqlite")).is_some());
        assert!(free_bytes(Path::new("data/ledger.sqlite")).is_some());
    }
}
