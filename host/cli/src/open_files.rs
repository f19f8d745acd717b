//! The limit of file descriptors. A process begins with a soft limit of 1024, for programs that call
//! `select`; connections of customers may be more, and then there is none left for mints and the cluster.

use crate::config::{Config, GatewayProcess};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For all but connections of customers: stores, relays, mints, and the API server.
const OTHERS: usize = 512;

/// What `paygress serve` needs with this configuration, with as many connections as there may be.
pub(crate) fn needed_by_service(config: &Config) -> u64 {
    let http = config.http.as_ref().map_or(0, |_| paygress_http::FILE_DESCRIPTORS);
    let gateway = config.gateway.as_ref();
    let gateway = gateway.filter(|gateway| gateway.process == GatewayProcess::Service);
    let gateway = gateway.map_or(0, |_| paygress_gateway::FILE_DESCRIPTORS);
    needed(http.saturating_add(gateway))
}

/// What `paygress gateway` needs.
pub(crate) fn needed_by_gateway() -> u64 {
    needed(paygress_gateway::FILE_DESCRIPTORS)
}

fn needed(by_customers: usize) -> u64 {
    u64::try_from(by_customers.saturating_add(OTHERS)).unwrap_or(u64::MAX)
}

/// The hard limit of this process, if it is less than this.
pub(crate) fn limit_below(needed: u64) -> Option<u64> {
    getrlimit(Resource::Nofile).maximum.filter(|maximum| *maximum < needed)
}

/// Raises the soft limit to the hard one, and warns where that is less than this.
pub(crate) fn raise_limit(needed: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
    }
    if let Some(limit) = limit_below(needed) {
        tracing::warn!(
            limit,
            needed,
            "the hard limit of file descriptors is less than all connections need: raise it (LimitNOFILE of systemd)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LimitNOFILE` of the unit in docs/operating.md.
    #[test]
    fn the_limit_of_the_documented_unit_is_enough() {
        let all = paygress_http::FILE_DESCRIPTORS + paygress_gateway::FILE_DESCRIPTORS;
        assert!(needed(all) < 65_536, "{}", needed(all));
        assert!(needed_by_gateway() < needed(all));
    }

    #[test]
    fn a_limit_is_compared_with_what_is_needed() {
        assert_eq!(limit_below(0), None);
        let maximum = getrlimit(Resource::Nofile).maximum;
        assert_eq!(limit_below(u64::MAX), maximum.filter(|maximum| *maximum < u64::MAX));
    }
}
