//! Ledger and wallet: whether they can be read, and which version has written them. A service that
//! runs goes on using them.

use super::report::{Area, Check, Group};
use crate::config::Config;
use paygress_cashu::WalletStore;
use paygress_core::error_chain;
use paygress_core::model::secret::Secret;
use paygress_store::SqlStore;
use paygress_store::db::{Database, Schema, SchemaVersion};
use std::path::Path;

pub(super) const DATABASE: Area = Area::new(Group::Host, "database");

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    match &config.database {
        Some(url) => postgres(url).await,
        None => vec![
            sqlite("LEDGER_PATH", &config.ledger, SqlStore::SCHEMA).await,
            sqlite("CASHU_DB_PATH", &config.wallet, WalletStore::SCHEMA).await,
        ],
    }
}

/// What the service does with a schema of this version at its start.
fn version(place: &str, SchemaVersion { found, known, .. }: SchemaVersion) -> Check {
    match found {
        0 => DATABASE.ok(format!("{place}: is empty; the service makes its tables")),
        _ if found == known => DATABASE.ok(format!("{place}: has schema version {found}")),
        _ => DATABASE.warn(
            format!("{place}: has schema version {found}; this program makes {known} of it"),
            "back up before the service of this version starts: an older one cannot read it then",
        ),
    }
}

async fn sqlite(setting: &str, path: &Path, schema: Schema) -> Check {
    let place = format!("{setting}: {}", path.display());
    if matches!(path.try_exists(), Ok(false)) {
        return DATABASE.ok(format!("{place} is not there; the service makes it"));
    }
    match Database::sqlite_version(path, schema).await {
        Ok(read) => version(&place, read),
        Err(error) => DATABASE.fail(
            format!("{setting}: {}", error_chain(&error)),
            "run this in the service's working directory, as its user; or restore a backup",
        ),
    }
}

async fn postgres(url: &Secret) -> Vec<Check> {
    match Database::postgres_state(url, &[SqlStore::SCHEMA, WalletStore::SCHEMA]).await {
        Ok(state) => {
            let server = DATABASE.ok(format!("DATABASE_URL: Postgres {} answers", state.server));
            let versions = state.schemas.into_iter().map(|it| {
                let place = match it.name == SqlStore::SCHEMA.name {
                    true => "the ledger in Postgres",
                    false => "the wallet in Postgres",
                };
                version(place, it)
            });
            std::iter::once(server).chain(versions).collect()
        }
        Err(error) => vec![DATABASE.fail(
            error_chain(&error),
            "check DATABASE_URL, the server, and that its certificate is trusted here",
        )],
    }
}
