//! `paygress order ssh`: logs in to a pod by the first way that works.

use crate::output::print_note;
use crate::ssh_command::{KnownHosts, PodLogin, ProxyOptions, Via};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use paygress_core::model::ids::PodName;
use paygress_core::protocol::{PodStatus, Response};
use paygress_gateway::GatewayTicket;
use paygress_nostr::client::Answer;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a way may take to answer before the next one is tried.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct SshArguments {
    /// The pod's name.
    pub(super) pod: String,
    /// The way to it. Left out: the first of these that works.
    #[arg(long, value_enum)]
    via: Option<Via>,
    /// The private SSH key to log in with.
    #[arg(long, short, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// More arguments of ssh, and a command to run in the pod.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl SshArguments {
    /// Becomes `ssh`, by what a service has answered about the pod.
    ///
    /// # Errors
    /// The pod does not run, there is no way to it, or no `ssh`.
    pub(super) async fn run(&self, answer: &Answer, known_hosts: &KnownHosts) -> Result<ExitCode> {
        let status = match &answer.response {
            Some(Response::Status(status)) if status.pod_name == self.pod => status,
            Some(Response::Error(error)) => {
                bail!("{}: {}", error.error_type.as_str(), error.message)
            }
            _ => bail!("the answer is no status of this pod"),
        };
        if status.status != PodStatus::Running {
            bail!("the pod does not run; see `paygress order status`");
        }
        let login = PodLogin::from(status);
        let via = match self.via {
            Some(via) => via,
            None => first_that_works(&login).await?,
        };
        let program = std::env::current_exe()?;
        let program = program.to_str().context("the path of this program is no text")?;
        let identity = self.identity.as_deref().map(Path::to_str);
        let identity =
            identity.map(|text| text.context("the key's path is no text")).transpose()?;
        let options = ProxyOptions { program, identity };
        let arguments = known_hosts.ssh_arguments(&login, via, &options)?;
        let failed = Command::new("ssh").args(arguments).args(&self.arguments).exec();
        Err(failed).context("ssh cannot be started; is OpenSSH's client installed?")
    }
}

async fn first_that_works(login: &PodLogin<'_>) -> Result<Via> {
    for via in Via::ALL.into_iter().filter(|via| login.has(*via)) {
        let tried = tokio::time::timeout(TRY_TIMEOUT, Box::pin(try_way(login, via))).await;
        match tried.unwrap_or_else(|_| Err(anyhow!("no answer"))) {
            Ok(()) => return Ok(via),
            Err(error) => print_note(format_args!("{}: {error:#}", via.as_str())),
        }
    }
    bail!("no way to the pod works from here; check the connection, and try again")
}

async fn try_way(login: &PodLogin<'_>, via: Via) -> Result<()> {
    let address = match via {
        Via::HostPort => (login.host, login.port),
        Via::JumpHost => {
            let (host, port, _) = login.jump_host().context("there is no jump host")?;
            (host, port)
        }
        Via::Iroh => {
            let ticket = login.ticket().context("there is no endpoint")?;
            let tunnel = paygress_gateway::connect(&ticket, &login.pod_name()?).await?;
            let (input, output) = (tokio::io::empty(), tokio::io::sink());
            return Ok(tunnel.run(input, output, std::future::ready(())).await?);
        }
    };
    TcpStream::connect(address).await?;
    Ok(())
}

/// The proxy of `ssh`: standard input and output are the pod's SSH port. Ends the process.
pub(super) async fn proxy(pod: &str, ticket: &str) -> Result<ExitCode> {
    let ticket: GatewayTicket = ticket.parse()?;
    let pod = PodName::parse(pod)?;
    let end = Box::pin(paygress_gateway::proxy_command(&ticket, &pod)).await;
    let code = i32::from(end.result.is_err());
    if let Err(error) = &end.result {
        print_note(format_args!("paygress: {error}"));
    }
    end.finish().await;
    // A thread reads standard input, and would be waited for.
    std::process::exit(code)
}
