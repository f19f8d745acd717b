//! The wallets of all mints.

use crate::client::MintClient;
use crate::error::MintError;
use crate::health::MintHealth;
use crate::http::JsonClient;
use crate::keyset_owners::ListedKeyset;
use crate::mint_wallet::MintWallet;
use crate::operation::{MintBalance, Transaction};
use crate::seed::Seed;
use crate::wallet_store::WalletStore;
use cdk::mint_url::MintUrl;
use cdk::nuts::{KeySetInfo, PublicKey, SecretKey};
use paygress_core::model::ids;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_store::db::DatabaseError;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How long a restore waits for the lists of the mints' keysets.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mints whose tokens are accepted.
    pub mints: Vec<ids::MintUrl>,
    /// The most that is held at one mint; none: no limit.
    pub max_balance: Option<Sat>,
    /// The key, in hex, for tokens that are locked to this service (P2PK, NUT-11).
    pub p2pk_secret_key: Option<Secret>,
}

/// Why the wallet was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} is not a mint's URL; write it as https://host[:port][/path]")]
    InvalidMint(ids::MintUrl),
    /// The key is not quoted, nor is the library's error.
    #[error("P2PK key is not a secret key; it is 64 hexadecimal digits")]
    InvalidP2pkKey,
    #[error("wallet store cannot be read: {0}")]
    Store(#[from] DatabaseError),
    #[error("HTTP client cannot be created: {0}")]
    HttpClient(#[source] MintError),
}

/// One wallet for each mint, with one seed and one store. See the crate's front page.
pub struct CashuWallet {
    pub(crate) accepted: Vec<ids::MintUrl>,
    pub(crate) wallets: HashMap<ids::MintUrl, MintWallet>,
    pub(crate) store: WalletStore,
    pub(crate) max_balance: Option<Sat>,
    pub(crate) p2pk_secret_key: Option<SecretKey>,
    /// For servers that are not mints.
    pub(crate) http: JsonClient,
}

/// A mint as the operator sees it.
#[derive(Clone, Debug)]
pub struct MintStatus {
    pub balance: MintBalance,
    /// Whether its tokens are accepted.
    pub accepted: bool,
    /// From the requests made so far.
    pub health: MintHealth,
}

/// How a mint's health is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// From the requests made so far.
    Cached,
    /// By a request to each mint.
    Probe,
}

impl CashuWallet {
    /// Opens the wallets of the accepted mints and of those that the store has money of. Makes no
    /// request.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        store: WalletStore,
        seed: Seed,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        let seed = Arc::new(seed);
        let p2pk_secret_key = settings
            .p2pk_secret_key
            .as_ref()
            .map(|key| SecretKey::from_hex(key.expose()).map_err(|_| OpenError::InvalidP2pkKey))
            .transpose()?;
        let mut accepted: Vec<ids::MintUrl> = Vec::new();
        for mint in &settings.mints {
            if !accepted.contains(mint) {
                accepted.push(mint.clone());
            }
        }
        store.rename_mints().await?;
        store.release_keysets(accepted.clone()).await?;
        let http = JsonClient::open().await.map_err(OpenError::HttpClient)?;
        let mut wallets = HashMap::new();
        for mint in accepted.iter().cloned().chain(store.mints().await?) {
            let url = MintUrl::from_str(mint.as_str())
                .map_err(|_| OpenError::InvalidMint(mint.clone()))?;
            let client = MintClient::new(url, http.clone());
            let mut wallet =
                MintWallet::new(client, mint.clone(), store.clone(), Arc::clone(&seed));
            wallet.p2pk_secret_key.clone_from(&p2pk_secret_key);
            wallet.max_balance = settings.max_balance;
            wallets.entry(mint).or_insert(wallet);
        }
        let max_balance = settings.max_balance;
        Ok(Self { accepted, wallets, store, max_balance, p2pk_secret_key, http })
    }

    pub(crate) fn p2pk_public_key(&self) -> Option<PublicKey> {
        self.p2pk_secret_key.as_ref().map(SecretKey::public_key)
    }

    pub(crate) fn accepted_mints(&self) -> Vec<ids::MintUrl> {
        let mut mints = self.accepted.clone();
        mints.sort();
        mints
    }

    /// Claims each mint's keysets before any restore: of several mints that list the same one, the
    /// fastest must not get it. Those of mints that are accepted no more are claimed last. A mint
    /// that does not answer in time claims its own later.
    pub(crate) async fn claim_keysets(&self) -> Result<(), DatabaseError> {
        let lists = self.wallets.values().map(|wallet| async move {
            let keysets = wallet.client.keysets(|_| false);
            let keysets = tokio::time::timeout(CLAIM_TIMEOUT, keysets).await.ok()?.ok()?;
            let of_mint =
                |keyset: &KeySetInfo| ListedKeyset { mint: wallet.mint.clone(), keyset: keyset.id };
            Some(keysets.iter().map(of_mint).collect::<Vec<_>>())
        });
        let listed = futures::future::join_all(lists).await.into_iter().flatten().flatten();
        let accepted = self.accepted_mints();
        let (first, last) = listed.partition(|one| accepted.contains(&one.mint));
        self.store.claim_keysets(first).await?;
        self.store.claim_keysets(last).await.map(drop)
    }

    /// What is held at each mint; mints without money are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn balances(&self) -> Result<Vec<MintBalance>, DatabaseError> {
        self.store.balances().await
    }

    /// All mints, with what is held there, ordered by URL.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn overview(&self, check: HealthCheck) -> Result<Vec<MintStatus>, DatabaseError> {
        let balances = self.balances().await?;
        let accepted = self.accepted_mints();
        if check == HealthCheck::Probe {
            let probes = self.wallets.values().map(|wallet| wallet.client.keysets(|_| true));
            let _ = futures::future::join_all(probes).await;
        }
        let status = |(mint, wallet): (&ids::MintUrl, &MintWallet)| {
            let empty = || MintBalance { mint: mint.clone(), available: Sat(0), reserved: Sat(0) };
            let balance = balances.iter().find(|balance| balance.mint == *mint).cloned();
            MintStatus {
                balance: balance.unwrap_or_else(empty),
                accepted: accepted.contains(mint),
                health: wallet.client.breaker.health(),
            }
        };
        let mut all: Vec<MintStatus> = self.wallets.iter().map(status).collect();
        all.sort_by(|one, other| one.balance.mint.cmp(&other.balance.mint));
        Ok(all)
    }

    /// Every operation that is done, open, or failed at a loss; the oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn transactions(&self) -> Result<Vec<Transaction>, DatabaseError> {
        let operations = self.store.operations().await?;
        Ok(operations.into_iter().map(Transaction::from).collect())
    }
}
