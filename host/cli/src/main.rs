//! `paygress --help`.
#![allow(clippy::print_stdout)]
// The futures of the service nest deeper than the compiler follows by default.
#![recursion_limit = "256"]

use anyhow::Result;
use clap::{Parser, Subcommand};
use paygress::telemetry::{self, Traces};
use paygress::{commands, order, policy, serve};
use paygress_nostr::Keys;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Parser)]
#[command(
    name = "paygress",
    version,
    about = "Sells SSH pods on a Kubernetes cluster for Cashu tokens",
    disable_help_subcommand = true
)]
struct Cli {
    /// The config file of the service; see examples/paygress.toml. Every key is also an environment
    /// variable, in capitals.
    #[arg(long, env = "PAYGRESS_CONFIG", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve customers.
    Serve,
    /// Buy from a service over NIP-17, as a customer.
    Order(Box<order::Arguments>),
    /// Show orders and account for every sat. The service may be running.
    Ledger {
        #[command(subcommand)]
        action: commands::ledger::LedgerAction,
    },
    /// Manage the operator's wallet. The service may be running.
    Wallet {
        #[command(subcommand)]
        action: commands::wallet::WalletAction,
    },
    /// Swap, test and write policies.
    Policy {
        #[command(subcommand)]
        action: policy::PolicyAction,
    },
    /// Manage the service's keys.
    Keys {
        #[command(subcommand)]
        action: KeysAction,
    },
    /// Print the OpenAPI description of the HTTP API.
    Openapi,
    /// Run everything in one process, without a cluster or network.
    #[cfg(feature = "demo")]
    Demo(paygress::demo::Arguments),
}

#[derive(Subcommand)]
enum KeysAction {
    /// Generate a secret key and print it with its public key. Keep the secret one in
    /// NOSTR_PRIVATE_KEY.
    Generate,
}

/// Our own messages, and those of libraries that an operator can act on.
const LOG: &str = "info,cdk=warn,cdk_common=warn,kube=warn,russh=off";

/// Libraries that would log tokens, logins or whole messages stay at this level or below, whatever
/// `RUST_LOG` says. `nostr_relay_pool` logs them even when it warns.
const CAPS: [(&str, LevelFilter); 13] = [
    ("nostr_relay_pool", LevelFilter::OFF),
    ("nostr_sdk", LevelFilter::OFF),
    ("nostr_relay_builder", LevelFilter::OFF),
    ("cdk", LevelFilter::INFO),
    ("cdk_common", LevelFilter::INFO),
    ("cdk_http_client", LevelFilter::INFO),
    ("kube_client", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    ("tungstenite", LevelFilter::INFO),
    ("russh", LevelFilter::INFO),
];

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.config.as_deref(), cli.command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paygress: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log(default: &str) -> Result<()> {
    log_and_trace(default, None).map(drop)
}

fn log_and_trace(default: &str, otlp: Option<&str>) -> Result<Option<Traces>> {
    let chosen = std::env::var("RUST_LOG").unwrap_or_default();
    let wanted = EnvFilter::try_new(if chosen.is_empty() { default } else { &chosen })?;
    let caps = Targets::new().with_default(LevelFilter::TRACE).with_targets(CAPS);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let (layer, traces) = otlp.map(telemetry::layer).transpose()?.unzip();
    tracing_subscriber::registry().with(layer).with(lines.with_filter(wanted.and(caps))).init();
    Ok(traces)
}

async fn run(config: Option<&Path>, command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve => {
            let config = serve::configured(config)?;
            let _traces = log_and_trace(LOG, config.otlp.as_deref())?;
            serve::serve(config).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Ledger { action } => {
            log("warn")?;
            commands::ledger::ledger(config, action).await
        }
        Command::Wallet { action } => {
            log("warn")?;
            commands::wallet::wallet(config, action).await
        }
        Command::Policy { action } => {
            log("warn")?;
            policy::policy(config, action).await
        }
        Command::Order(arguments) => {
            log("off")?;
            order::order(*arguments).await
        }
        Command::Keys { action: KeysAction::Generate } => {
            let keys = Keys::generate();
            println!("{}", paygress_nostr::nsec(&keys));
            println!("{}", paygress_nostr::npub(&keys.public_key()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi => {
            println!("{}", paygress_http::openapi());
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => {
            log("off")?;
            paygress::demo::demo(arguments).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
