//! A mint of our own with fake Lightning, and a customer's wallet that it fills: for the demo and
//! for tests.

use axum::Router;
use cdk::Amount;
use cdk::mint::{Mint, MintBuilder, MintMeltLimits};
use cdk::nuts::{CurrencyUnit, PaymentMethod, Token, nut00::KnownMethod};
use cdk::types::{FeeReserve, QuoteTTL};
use cdk::wallet::{ReceiveOptions, SendOptions, Wallet};
use cdk_fake_wallet::FakeWallet;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The most that is minted at once.
const LARGEST: u64 = 1_000_000;
const QUOTE_SECONDS: u64 = 3_600;

/// A mint on 127.0.0.1; it ends when this is dropped.
pub struct TestMint {
    url: String,
    mint: Arc<Mint>,
    server: JoinHandle<()>,
}

impl Drop for TestMint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl TestMint {
    /// Starts a mint with this input fee, in thousandths of a sat a proof.
    ///
    /// # Errors
    /// In words.
    pub async fn start(input_fee_ppk: u64) -> Result<Self, String> {
        let store = Arc::new(cdk_sqlite::mint::memory::empty().await.map_err(text)?);
        let mut builder = MintBuilder::new(store.clone()).with_name("test mint".to_owned());
        let reserve = FeeReserve { min_fee_reserve: Amount::from(1), percent_fee_reserve: 0.0 };
        let lightning =
            FakeWallet::new(reserve, HashMap::new(), HashSet::new(), 0, CurrencyUnit::Sat);
        let bolt11 = PaymentMethod::Known(KnownMethod::Bolt11);
        builder
            .add_payment_processor(
                CurrencyUnit::Sat,
                bolt11,
                MintMeltLimits::new(1, LARGEST),
                Arc::new(lightning),
            )
            .await
            .map_err(text)?;
        builder.set_unit_fee(&CurrencyUnit::Sat, input_fee_ppk).map_err(text)?;
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(text)?;
        let mint = Arc::new(builder.build_with_seed(store, &seed).await.map_err(text)?);
        mint.set_quote_ttl(QuoteTTL::new(QUOTE_SECONDS, QUOTE_SECONDS)).await.map_err(text)?;
        mint.start().await.map_err(text)?;
        let router: Router =
            cdk_axum::create_mint_router(Arc::clone(&mint), vec!["bolt11".to_owned()])
                .await
                .map_err(text)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
        let url = format!("http://{}", listener.local_addr().map_err(text)?);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the test mint ended");
            }
        });
        Ok(Self { url, mint, server })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An invoice that fake Lightning can pay.
    ///
    /// # Errors
    /// In words.
    pub async fn invoice(&self, sat: u64) -> Result<String, String> {
        let wallet = TestWallet::new(&self.url).await?;
        let method = PaymentMethod::Known(KnownMethod::Bolt11);
        let quote = wallet
            .wallet
            .mint_quote(method, Some(Amount::from(sat)), None, None)
            .await
            .map_err(text)?;
        Ok(quote.request)
    }

    /// A Lightning address whose invoices are of this mint: `name@127.0.0.1:port`, served until the
    /// mint is dropped.
    ///
    /// # Errors
    /// In words.
    pub async fn lightning_address(&self) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
        let host = listener.local_addr().map_err(text)?.to_string();
        let callback = format!("http://{host}/pay");
        let offer = format!(
            r#"{{"tag":"payRequest","callback":"{callback}","minSendable":1000,"maxSendable":100000000,"metadata":"[]"}}"#
        );
        let mint = TestWallet::new(&self.url).await?;
        let pay = move |axum::extract::RawQuery(query): axum::extract::RawQuery| async move {
            let msat = query
                .and_then(|query| query.strip_prefix("amount=")?.parse::<u64>().ok())
                .unwrap_or(0);
            let method = PaymentMethod::Known(KnownMethod::Bolt11);
            let quote =
                mint.wallet.mint_quote(method, Some(Amount::from(msat / 1_000)), None, None).await;
            quote.map(|quote| format!(r#"{{"pr":"{}","routes":[]}}"#, quote.request)).map_err(text)
        };
        let router = Router::new()
            .route(
                "/.well-known/lnurlp/{name}",
                axum::routing::get(move || std::future::ready(offer.clone())),
            )
            .route("/pay", axum::routing::get(pay));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(format!("operator@{host}"))
    }

    /// What the mint has signed and nobody has brought back: what all wallets together hold.
    ///
    /// # Errors
    /// In words.
    pub async fn outstanding(&self) -> Result<u64, String> {
        let sum = |all: HashMap<_, Amount>| {
            all.into_values().fold(0_u64, |sum, amount| sum.saturating_add(amount.to_u64()))
        };
        let issued = sum(self.mint.total_issued().await.map_err(text)?);
        Ok(issued.saturating_sub(sum(self.mint.total_redeemed().await.map_err(text)?)))
    }

    /// The mint itself.
    #[must_use]
    pub fn mint(&self) -> &Arc<Mint> {
        &self.mint
    }
}

/// The same proofs, claimed to be of another mint or in another unit: what a liar or a confused
/// wallet sends.
///
/// # Errors
/// In words: this is no token of a full keyset id.
pub fn relabelled(token: &str, mint: &str, unit: &str) -> Result<String, String> {
    let token: Token = token.parse().map_err(text)?;
    let Token::TokenV4(mut token) = token else { return Err("not a V4 token".to_owned()) };
    token.mint_url = mint.parse().map_err(text)?;
    token.unit = unit.parse().map_err(text)?;
    Ok(token.to_string())
}

/// What a payment request (NUT-18) asks for: the amount, the mints, and whether it says where to
/// post to.
///
/// # Errors
/// In words: it is none.
pub fn asked(request: &str) -> Result<(u64, Vec<String>, bool), String> {
    let request: cdk::nuts::PaymentRequest = request.parse().map_err(text)?;
    let mints = request.mints.iter().map(ToString::to_string).collect();
    Ok((request.amount.map_or(0, |amount| amount.to_u64()), mints, !request.transports.is_empty()))
}

/// The same token without its first proof: what somebody sends who has spent a part, or wants to
/// pay twice with the rest.
///
/// # Errors
/// In words: it has one proof only.
pub fn partial(token: &str) -> Result<String, String> {
    let token: Token = token.parse().map_err(text)?;
    let Token::TokenV4(mut token) = token else { return Err("not a V4 token".to_owned()) };
    let all: usize = token.token.iter().map(|keyset| keyset.proofs.len()).sum();
    if all < 2 {
        return Err("it has one proof only".to_owned());
    }
    if let Some(keyset) = token.token.first_mut() {
        keyset.proofs.remove(0);
    }
    token.token.retain(|keyset| !keyset.proofs.is_empty());
    Ok(token.to_string())
}

/// The same proofs, each claimed to be worth twice as much: what a forger sends.
///
/// # Errors
/// In words.
pub fn inflated(token: &str) -> Result<String, String> {
    let token: Token = token.parse().map_err(text)?;
    let Token::TokenV4(mut token) = token else { return Err("not a V4 token".to_owned()) };
    for keyset in &mut token.token {
        for proof in &mut keyset.proofs {
            proof.amount = Amount::from(proof.amount.to_u64().saturating_mul(2));
        }
    }
    Ok(token.to_string())
}

/// The same token without the proofs that the mint has signed it (NUT-12): what a wallet sends that
/// spares the bytes, and who has invented it.
///
/// # Errors
/// In words.
pub fn unsigned(token: &str) -> Result<String, String> {
    let token: Token = token.parse().map_err(text)?;
    let Token::TokenV4(mut token) = token else { return Err("not a V4 token".to_owned()) };
    for keyset in &mut token.token {
        for proof in &mut keyset.proofs {
            proof.dleq = None;
        }
    }
    Ok(token.to_string())
}

/// The same token in the older form, V3.
///
/// # Errors
/// In words.
pub fn as_v3(token: &str) -> Result<String, String> {
    let token: Token = token.parse().map_err(text)?;
    Ok(token.to_v3_string())
}

/// A customer's wallet in memory.
pub struct TestWallet {
    wallet: Wallet,
}

impl TestWallet {
    /// An empty wallet of that mint.
    ///
    /// # Errors
    /// In words.
    pub async fn new(mint: &str) -> Result<Self, String> {
        let store = cdk_sqlite::wallet::memory::empty().await.map_err(text)?;
        let mut seed = [0_u8; 64];
        getrandom::fill(&mut seed).map_err(text)?;
        let builder = cdk::wallet::WalletBuilder::new()
            .mint_url(mint.parse().map_err(text)?)
            .unit(CurrencyUnit::Sat);
        let wallet = builder
            .localstore(Arc::new(store))
            .seed(seed)
            .use_http_subscription()
            .without_rate_limiting()
            .build()
            .map_err(text)?;
        Ok(Self { wallet })
    }

    /// Fills it: fake Lightning pays at once.
    ///
    /// # Errors
    /// In words.
    pub async fn fill(&self, sat: u64) -> Result<(), String> {
        let method = PaymentMethod::Known(KnownMethod::Bolt11);
        let quote = self
            .wallet
            .mint_quote(method, Some(Amount::from(sat)), None, None)
            .await
            .map_err(text)?;
        self.wallet
            .wait_and_mint_quote(quote, Default::default(), None, Duration::from_secs(30))
            .await
            .map_err(text)?;
        Ok(())
    }

    /// A token over so much.
    ///
    /// # Errors
    /// In words.
    pub async fn token(&self, sat: u64) -> Result<String, String> {
        let prepared = self
            .wallet
            .prepare_send(Amount::from(sat), SendOptions::default())
            .await
            .map_err(text)?;
        Ok(prepared.confirm(None).await.map_err(text)?.to_string())
    }

    /// A token over so much that only the holder of a key can redeem (NUT-11).
    ///
    /// # Errors
    /// In words.
    pub async fn locked_token(&self, sat: u64, key: &str) -> Result<String, String> {
        let key = cdk::nuts::PublicKey::from_hex(key).map_err(text)?;
        let conditions = Some(cdk::nuts::SpendingConditions::new_p2pk(key, None));
        let options = SendOptions { conditions, ..SendOptions::default() };
        let prepared = self.wallet.prepare_send(Amount::from(sat), options).await.map_err(text)?;
        Ok(prepared.confirm(None).await.map_err(text)?.to_string())
    }

    /// Pays a payment request (NUT-18) where it says, as `cdk-cli pay-request` does.
    ///
    /// # Errors
    /// In words: what the payee has refused, for instance.
    pub async fn pay_request(&self, request: &str) -> Result<(), String> {
        let request = request.parse().map_err(text)?;
        self.wallet
            .prepare_pay_request(request, None)
            .await
            .map_err(text)?
            .confirm()
            .await
            .map_err(text)
    }

    /// Redeems a token; gives the net amount.
    ///
    /// # Errors
    /// In words: it was spent, for instance.
    pub async fn redeem(&self, token: &str) -> Result<u64, String> {
        Ok(self.wallet.receive(token, ReceiveOptions::default()).await.map_err(text)?.to_u64())
    }

    /// The proofs of these tokens that nobody has spent, each once: what their holder could still
    /// redeem.
    ///
    /// # Errors
    /// In words.
    pub async fn unspent(&self, tokens: &[String]) -> Result<u64, String> {
        let keysets = self.wallet.mint_connector().get_mint_keysets().await.map_err(text)?.keysets;
        let mut proofs = HashMap::new();
        for token in tokens {
            let token: Token = token.parse().map_err(text)?;
            for proof in token.proofs(&keysets).map_err(text)? {
                proofs.insert(proof.y().map_err(text)?, proof.amount.to_u64());
            }
        }
        if proofs.is_empty() {
            return Ok(0);
        }
        let request = cdk::nuts::CheckStateRequest { ys: proofs.keys().copied().collect() };
        let states =
            self.wallet.mint_connector().post_check_state(request).await.map_err(text)?.states;
        let unspent = states.iter().filter(|state| state.state == cdk::nuts::State::Unspent);
        Ok(unspent.filter_map(|state| proofs.get(&state.y)).sum())
    }

    /// What it holds, in sat.
    ///
    /// # Errors
    /// In words.
    pub async fn balance(&self) -> Result<u64, String> {
        Ok(self.wallet.total_balance().await.map_err(text)?.to_u64())
    }
}
