//! A mint with fake Lightning.

use crate::TestWallet;
use crate::error::{Result, during};
use axum::Router;
use cdk::Amount;
use cdk::mint::{Mint, MintBuilder, MintMeltLimits};
use cdk::nuts::{CurrencyUnit, PaymentMethod, nut00::KnownMethod};
use cdk::types::{FeeReserve, QuoteTTL};
use cdk_fake_wallet::FakeWallet;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
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

impl TestMint {
    /// Starts a mint with this input fee, in thousandths of a sat a proof.
    pub async fn start(input_fee_ppk: u64) -> Result<Self> {
        let store =
            Arc::new(cdk_sqlite::mint::memory::empty().await.map_err(during("start the mint"))?);
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
            .map_err(during("start the mint"))?;
        builder
            .set_unit_fee(&CurrencyUnit::Sat, input_fee_ppk)
            .map_err(during("start the mint"))?;
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(during("start the mint"))?;
        let mint = Arc::new(
            builder.build_with_seed(store, &seed).await.map_err(during("start the mint"))?,
        );
        mint.set_quote_ttl(QuoteTTL::new(QUOTE_SECONDS, QUOTE_SECONDS))
            .await
            .map_err(during("start the mint"))?;
        mint.start().await.map_err(during("start the mint"))?;
        let router: Router =
            cdk_axum::create_mint_router(Arc::clone(&mint), vec!["bolt11".to_owned()])
                .await
                .map_err(during("start the mint"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(during("start the mint"))?;
        let url = format!("http://{}", listener.local_addr().map_err(during("start the mint"))?);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the test mint ended");
            }
        });
        Ok(Self { url, mint, server })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An invoice that fake Lightning can pay.
    pub async fn invoice(&self, sat: u64) -> Result<String> {
        Ok(TestWallet::new(&self.url).await?.quote(sat).await?.request)
    }

    /// So many tokens of this value, each with proofs of its own, made many at a time. A wallet that
    /// pays them out one after the other reads all proofs that it has had, for each of them.
    pub async fn tokens(&self, count: usize, sat: u64) -> Result<Vec<String>> {
        TestWallet::new(&self.url).await?.into_tokens(count, sat).await
    }

    /// A Lightning address whose invoices are of this mint: `name@127.0.0.1:port`, served until the
    /// mint is dropped.
    pub async fn lightning_address(&self) -> Result<String> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.map_err(during("serve a Lightning address"))?;
        let host = listener.local_addr().map_err(during("serve a Lightning address"))?.to_string();
        let callback = format!("http://{host}/pay");
        let offer = format!(
            r#"{{"tag":"payRequest","callback":"{callback}","minSendable":1000,"maxSendable":100000000,"metadata":"[]"}}"#
        );
        let wallet = TestWallet::new(&self.url).await?;
        let pay = move |axum::extract::RawQuery(query): axum::extract::RawQuery| async move {
            let msat = query
                .and_then(|query| query.strip_prefix("amount=")?.parse::<u64>().ok())
                .unwrap_or(0);
            let quote = wallet.quote(msat / 1_000).await;
            quote
                .map(|quote| format!(r#"{{"pr":"{}","routes":[]}}"#, quote.request))
                .map_err(|error| error.to_string())
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

    /// What the mint has signed and not yet taken back: what all wallets together hold.
    pub async fn outstanding(&self) -> Result<u64> {
        let sum = |all: HashMap<_, Amount>| {
            all.into_values().fold(0_u64, |sum, amount| sum.saturating_add(amount.to_u64()))
        };
        let issued =
            sum(self.mint.total_issued().await.map_err(during("read the mint's totals"))?);
        Ok(issued.saturating_sub(sum(self
            .mint
            .total_redeemed()
            .await
            .map_err(during("read the mint's totals"))?)))
    }

    /// Announces from now on that it does not restore signatures (NUT-09).
    pub async fn announce_no_restore(&self) -> Result<()> {
        let mut info =
            self.mint.mint_info().await.map_err(during("read the mint's information"))?;
        info.nuts.nut09.supported = false;
        self.mint.set_mint_info(info).await.map_err(during("change the mint's information"))
    }

    #[must_use]
    pub fn mint(&self) -> &Arc<Mint> {
        &self.mint
    }
}
