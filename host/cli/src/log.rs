//! The log, on standard error: as text or as JSON, a line of which is an event.

use anyhow::{Result, bail};
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;

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

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    /// That of `LOG_FORMAT`.
    ///
    /// # Errors
    /// It is another one.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => bail!("LOG_FORMAT must be text or json"),
        }
    }
}

/// The layer that writes what this filter, as that of `RUST_LOG`, lets through, less what may hold
/// secrets.
///
/// # Errors
/// The filter cannot be read.
pub fn layer<S, W>(
    filter: &str,
    format: LogFormat,
    writer: W,
) -> Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let wanted = EnvFilter::try_new(filter)?;
    let caps = Targets::new().with_default(LevelFilter::TRACE).with_targets(CAPS);
    let lines = tracing_subscriber::fmt::layer::<S>().with_writer(writer);
    Ok(match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            lines.with_filter(wanted.and(caps)).boxed()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            lines.with_filter(wanted.and(caps)).boxed()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_text_or_json() {
        assert_eq!(LogFormat::parse("").unwrap(), LogFormat::Text);
        assert_eq!(LogFormat::parse("text").unwrap(), LogFormat::Text);
        assert_eq!(LogFormat::parse("json").unwrap(), LogFormat::Json);
        assert!(LogFormat::parse("JSON ").is_err());
    }
}
