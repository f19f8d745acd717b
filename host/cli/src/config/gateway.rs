//! The gateway: a way to pods beside the ports of nodes.

use super::reader::Reader;
use paygress_cluster::PodRoute;
use paygress_core::model::secret::Secret;
use paygress_gateway::Relay;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The gateway, if anything of it is on.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The jump host, if it is on.
    pub jump_host: Option<JumpHostConfig>,
    /// The endpoint of iroh, if it is on.
    pub iroh: Option<IrohConfig>,
    /// The directory of its keys; none: that of the ledger.
    pub keys: Option<PathBuf>,
    pub process: GatewayProcess,
    /// Health and metrics of `paygress gateway`, if they are served.
    pub http: Option<GatewayHttpConfig>,
}

/// Where health and metrics of a gateway in a process of its own are.
#[derive(Clone, Debug)]
pub struct GatewayHttpConfig {
    pub listen: SocketAddr,
    /// None: there are no metrics.
    pub operator_token: Option<Secret>,
}

/// The SSH jump host.
#[derive(Clone, Debug)]
pub struct JumpHostConfig {
    pub listen: SocketAddr,
    /// What customers connect to; none: where pods' ports are.
    pub host: Option<String>,
    /// None: the port that it listens on.
    pub port: Option<u16>,
}

/// The endpoint of iroh.
#[derive(Clone, Debug)]
pub struct IrohConfig {
    /// UDP addresses.
    pub bind: Vec<SocketAddr>,
    /// Under which it is reached from outside, if they are others.
    pub external: Vec<SocketAddr>,
    /// None: it is reached directly only.
    pub relays: Vec<Relay>,
}

/// What serves the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayProcess {
    /// `paygress serve`.
    Service,
    /// `paygress gateway`, with the same configuration.
    Own,
}

impl GatewayConfig {
    /// Read in any case: its problems are reported even if it is off.
    pub(super) fn read(reader: &mut Reader, operator_token: Option<Secret>) -> Option<Self> {
        let jump_host = reader.jump_host();
        let iroh = reader.iroh();
        let keys = reader.text("GATEWAY_KEY_DIR").map(PathBuf::from);
        let process = match reader.flag("GATEWAY_IN_SERVICE") {
            true => GatewayProcess::Service,
            false => GatewayProcess::Own,
        };
        let listen = reader.listen_address("GATEWAY_HTTP_LISTEN");
        let http = listen.map(|listen| GatewayHttpConfig { listen, operator_token });
        let gateway = Self { jump_host, iroh, keys, process, http };
        gateway.check(reader);
        (gateway.jump_host.is_some() || gateway.iroh.is_some()).then_some(gateway)
    }

    /// With a gateway in a process of its own, the settings must have what customers need and the
    /// service cannot find out.
    fn check(&self, reader: &mut Reader) {
        if self.process == GatewayProcess::Service {
            if self.http.is_some() {
                reader.problem("GATEWAY_HTTP_LISTEN: is for `paygress gateway`, with GATEWAY_IN_SERVICE=false; the service has health and metrics at BIND_ADDR");
            }
            return;
        }
        if let Some(iroh) = &self.iroh
            && iroh.external.is_empty()
            && iroh.relays.is_empty()
        {
            reader.problem("GATEWAY_IN_SERVICE=false: needs GATEWAY_IROH_EXTERNAL or GATEWAY_IROH_RELAYS, by which customers find the endpoint of the other process");
        }
    }
}

impl Reader {
    fn jump_host(&mut self) -> Option<JumpHostConfig> {
        let host = self.gateway_host();
        let port = self.number("GATEWAY_SSH_PORT", 1..=65_535);
        let port = port.and_then(|number| u16::try_from(number).ok());
        let listen = self.listen_address("GATEWAY_SSH_LISTEN")?;
        Some(JumpHostConfig { listen, host, port })
    }

    /// None where it is not set, or empty.
    fn listen_address(&mut self, key: &'static str) -> Option<SocketAddr> {
        let listen = self.text(key).filter(|text| !text.trim().is_empty())?;
        let address: Option<SocketAddr> = listen.parse().ok();
        if address.is_none() {
            self.problem(format!("{key}: must be address:port, [::]:2222 for instance, or empty"));
        }
        address
    }

    pub(super) fn gateway_host(&mut self) -> Option<String> {
        let host = self.text("GATEWAY_SSH_HOST").filter(|text| !text.is_empty())?;
        self.check_host("GATEWAY_SSH_HOST", &host);
        Some(host)
    }

    fn iroh(&mut self) -> Option<IrohConfig> {
        let is_on = self.flag("GATEWAY_IROH");
        let bind = self.addresses("GATEWAY_IROH_BIND");
        let external = self.addresses("GATEWAY_IROH_EXTERNAL");
        let relays = self.gateway_relays();
        is_on.then_some(IrohConfig { bind, external, relays })
    }

    fn addresses(&mut self, key: &'static str) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for text in self.names(key) {
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => self.problem(format!(
                    "{key}: {text} is not an address; write 192.0.2.7:4433 or [2001:db8::7]:4433"
                )),
            }
        }
        addresses
    }

    fn gateway_relays(&mut self) -> Vec<Relay> {
        let mut relays = Vec::new();
        for text in self.names("GATEWAY_IROH_RELAYS") {
            match text.parse() {
                Ok(relay) => relays.push(relay),
                Err(_) => self.problem(format!(
                    "GATEWAY_IROH_RELAYS: {text} is not a relay; write https://host[:port]"
                )),
            }
        }
        relays
    }

    /// How pods are reached by the gateway.
    pub(super) fn pod_route(&mut self) -> PodRoute {
        let values = [
            ("auto", PodRoute::Auto),
            ("pod-network", PodRoute::PodNetwork),
            ("port-forward", PodRoute::PortForward),
        ];
        self.one_of("GATEWAY_POD_NETWORK", &values).unwrap_or(PodRoute::Auto)
    }
}
