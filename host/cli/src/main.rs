//! `paygress --help`.
// The futures of the service nest deeper than the compiler follows by default.
#![recursion_limit = "256"]

use anyhow::{Context, Result};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};
use paygress::config::Config;
use paygress::log::{self, LogFormat};
use paygress::output::{print_line, print_note};
use paygress::telemetry::{self, Traces};
use paygress::{commands, compiler, doctor, heap, order, policy, receipt, serve};
use paygress_core::error_chain;
use paygress_nostr::Keys;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::runtime::Runtime;
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
    /// The config file of the service; see examples/paygress.toml, and "Every setting" in
    /// docs/operating.md. Every key is also an environment variable, in capitals.
    #[arg(long, env = "PAYGRESS_CONFIG", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve customers.
    Serve,
    /// Serve the gateway alone, with the service's configuration and GATEWAY_IN_SERVICE=false.
    Gateway,
    /// Check everything that the service needs, and show what to do. Exits with 1 if something keeps
    /// it from selling. The service may be running.
    Doctor(doctor::Arguments),
    /// Buy from a service over NIP-17, as a customer.
    Order(Box<order::Arguments>),
    /// Verify the signed receipts of a service, as a customer.
    Receipt {
        #[command(subcommand)]
        action: receipt::ReceiptAction,
    },
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
    /// End leases in the running service.
    Lease {
        #[command(subcommand)]
        action: commands::lease::LeaseAction,
    },
    /// Pause, drain or resume sales in the running service.
    Sales {
        #[command(subcommand)]
        action: commands::sales::SalesAction,
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
    /// Compile one component, for this program itself.
    #[command(hide = true)]
    PolicyCompiler(compiler::CompilerArguments),
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

/// Our own messages, and those of libraries that an operator can act on. kube's builder logs, without
/// a reason, what whoever has called it reports with one.
const LOG: &str = "info,cdk=warn,cdk_common=warn,iroh=warn,kube=warn,\
    kube_client::client::builder=off,russh=off";

/// The command line. Every command takes `--config`, also after its name; the help of those that
/// read no config file does not show it.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommands(|command| match command.get_name() {
        "order" | "receipt" | "keys" | "openapi" | "demo" => command.arg(hidden_config()),
        "policy" => command.mut_subcommands(|command| match policy::reads_config(&command) {
            true => command,
            false => command.arg(hidden_config()),
        }),
        _ => command,
    })
}

/// In place of the one of [`Cli`], below a command.
fn hidden_config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .hide(true)
}

fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Before anything that it does not need: it is limited, and has no secrets.
    if let Command::PolicyCompiler(arguments) = &cli.command {
        return compiler::run(arguments);
    }
    // While it may.
    paygress_policy::open_page_map();
    if let Err(error) = forbid_core_dumps() {
        print_note(format_args!("paygress: core dumps cannot be turned off: {error}"));
        return ExitCode::FAILURE;
    }
    compiler::use_this_program();
    let heap = match cli.command {
        Command::Gateway => heap::keep_small(),
        Command::Serve => heap::trim_regularly(),
        _ => Ok(()),
    };
    let runtime = match heap.and_then(|()| Runtime::new()) {
        Ok(runtime) => runtime,
        Err(error) => {
            print_note(format_args!("paygress: the runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.config.as_deref(), cli.command)) {
        Ok(code) => code,
        Err(error) => {
            print_note(format_args!("paygress: {}", error_chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

/// The memory holds the mnemonic, keys and tokens: it is not written to a disk when the process
/// crashes, and no other process of the same user may read it. The limit alone does not hold where
/// cores are piped to a program.
fn forbid_core_dumps() -> std::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn begin_log(default: &str) -> Result<()> {
    log_and_trace(default, None).map(drop)
}

fn log_and_trace(default: &str, otlp: Option<&str>) -> Result<Option<Traces>> {
    let chosen = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = if chosen.is_empty() { default } else { &chosen };
    let format = LogFormat::parse(&std::env::var("LOG_FORMAT").unwrap_or_default())?;
    let lines = log::layer(filter, format, std::io::stderr).context("RUST_LOG cannot be read")?;
    let (layer, traces) = otlp.map(telemetry::layer).transpose()?.unzip();
    tracing_subscriber::registry().with(layer).with(lines).init();
    Ok(traces)
}

/// The configuration of a service, whose log begins, with a warning for each variable that may be a
/// setting with a typo. Where the service does not start, it may be why.
fn configured_and_logged(file: Option<&Path>) -> Result<(Config, Option<Traces>)> {
    let unknown = serve::unknown_variables();
    let config = serve::configured(file).inspect_err(|_| unknown.iter().for_each(print_note))?;
    let traces = log_and_trace(LOG, config.otlp.as_deref())?;
    for variable in unknown {
        tracing::warn!("{variable}");
    }
    Ok((config, traces))
}

fn print_new_keys() {
    let keys = Keys::generate();
    print_line(paygress_nostr::nsec(&keys));
    print_line(paygress_nostr::npub(&keys.public_key()));
}

async fn run(config: Option<&Path>, command: Command) -> Result<ExitCode> {
    // long: one arm for each command.
    match command {
        Command::Serve => {
            let (config, _traces) = configured_and_logged(config)?;
            serve::serve(config).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Gateway => {
            let (config, _traces) = configured_and_logged(config)?;
            serve::serve_gateway(config).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Doctor(arguments) => {
            begin_log("warn,kube_client::client::builder=off")?;
            doctor::doctor(config, &arguments).await
        }
        Command::Ledger { action } => {
            begin_log("warn")?;
            commands::ledger::ledger(config, action).await
        }
        Command::Wallet { action } => {
            begin_log("warn")?;
            commands::wallet::wallet(config, action).await
        }
        Command::Lease { action } => commands::lease::lease(config, action).await,
        Command::Sales { action } => commands::sales::sales(config, action).await,
        Command::Policy { action } => {
            begin_log("warn")?;
            policy::policy(config, action).await
        }
        Command::Order(arguments) => {
            begin_log("off")?;
            order::order(*arguments).await
        }
        Command::Receipt { action } => {
            begin_log("off")?;
            receipt::receipt(action).await
        }
        Command::Keys { action: KeysAction::Generate } => {
            print_new_keys();
            Ok(ExitCode::SUCCESS)
        }
        Command::PolicyCompiler(arguments) => Ok(compiler::run(&arguments)),
        Command::Openapi => {
            print_line(paygress_http::openapi());
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => {
            begin_log("off")?;
            paygress::demo::demo(arguments).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn the_memory_is_not_dumped() {
        forbid_core_dumps().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let fields: Vec<&str> = cores.split_whitespace().skip(4).take(2).collect();
        assert_eq!(fields, ["0", "0"], "{cores}");
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }

    #[test]
    fn the_config_file_is_taken_everywhere() {
        for arguments in [
            "paygress --config x serve",
            "paygress serve --config x",
            "paygress policy history --config x",
            "paygress order offers --config x",
            "paygress policy --config x inspect y.wasm",
        ] {
            let matches = command_line().try_get_matches_from(arguments.split(' ')).unwrap();
            let cli = Cli::from_arg_matches(&matches).unwrap();
            assert_eq!(cli.config.as_deref(), Some(Path::new("x")), "{arguments}");
        }
    }

    #[test]
    fn the_config_file_is_offered_where_it_is_read() {
        for (arguments, offered) in [
            ("paygress serve --help", true),
            ("paygress doctor --help", true),
            ("paygress ledger list --help", true),
            ("paygress lease end --help", true),
            ("paygress sales pause --help", true),
            ("paygress policy swap --help", true),
            ("paygress policy pull --help", true),
            ("paygress policy new --help", false),
            ("paygress policy inspect --help", false),
            ("paygress order spawn --help", false),
            ("paygress receipt verify --help", false),
            ("paygress keys generate --help", false),
            ("paygress openapi --help", false),
        ] {
            let help = command_line().try_get_matches_from(arguments.split(' ')).unwrap_err();
            assert_eq!(help.to_string().contains("--config"), offered, "{arguments}");
        }
    }
}
