//! A customer's wallet that the mint fills.

use crate::error::{Result, during};
use cdk::Amount;
use cdk::nuts::nut10::Conditions;
use cdk::nuts::{
    CurrencyUnit, PaymentMethod, PublicKey, SecretKey, SigFlag, SpendingConditions, Token,
    nut00::KnownMethod,
};
use cdk::wallet::{ReceiveOptions, SendOptions, Wallet};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a token that is locked to a key (NUT-11) says beside the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenLock {
    /// Until when it holds, in seconds since 1970.
    pub locktime: Option<u64>,
    /// Whether another key opens it after that.
    pub refundable: bool,
    /// Whether one signature is over all inputs and outputs (SIG_ALL).
    pub signs_all: bool,
    /// Whether the key is blinded (NUT-28).
    pub blinded: bool,
}

/// A customer's wallet in memory.
#[derive(Clone)]
pub struct TestWallet {
    wallet: Wallet,
}

impl TestWallet {
    /// An empty wallet of that mint.
    pub async fn new(mint: &str) -> Result<Self> {
        let store = cdk_sqlite::wallet::memory::empty().await.map_err(during("open a wallet"))?;
        let mut seed = [0_u8; 64];
        getrandom::fill(&mut seed).map_err(during("open a wallet"))?;
        let builder = cdk::wallet::WalletBuilder::new()
            .mint_url(mint.parse().map_err(during("open a wallet"))?)
            .unit(CurrencyUnit::Sat);
        let wallet = builder
            .localstore(Arc::new(store))
            .seed(seed)
            .use_http_subscription()
            .without_rate_limiting()
            .build()
            .map_err(during("open a wallet"))?;
        Ok(Self { wallet })
    }

    /// An invoice of the mint that fills the wallet when it is paid.
    pub(crate) async fn quote(&self, sat: u64) -> Result<cdk::wallet::MintQuote> {
        let method = PaymentMethod::Known(KnownMethod::Bolt11);
        let amount = Some(Amount::from(sat));
        self.wallet
            .mint_quote(method, amount, None, None)
            .await
            .map_err(during("ask for an invoice"))
    }

    /// Fills it: fake Lightning pays at once.
    pub async fn fill(&self, sat: u64) -> Result<()> {
        let quote = self.quote(sat).await?;
        self.wallet
            .wait_and_mint_quote(quote, Default::default(), None, Duration::from_secs(30))
            .await
            .map_err(during("fill a wallet"))?;
        Ok(())
    }

    pub async fn token(&self, sat: u64) -> Result<String> {
        self.token_with(sat, SendOptions::default()).await
    }

    /// A token that only the holder of a key can redeem (NUT-11).
    pub async fn locked_token(&self, sat: u64, key: &str) -> Result<String> {
        let key = PublicKey::from_hex(key).map_err(during("make a locked token"))?;
        let conditions = Some(SpendingConditions::new_p2pk(key, None));
        self.token_with(sat, SendOptions { conditions, ..SendOptions::default() }).await
    }

    /// A token with this lock to a key.
    pub async fn token_with_lock(&self, sat: u64, key: &str, lock: TokenLock) -> Result<String> {
        let key = PublicKey::from_hex(key).map_err(during("make a locked token"))?;
        let conditions = Conditions {
            locktime: lock.locktime,
            refund_keys: lock.refundable.then(|| vec![SecretKey::generate().public_key()]),
            sig_flag: if lock.signs_all { SigFlag::SigAll } else { SigFlag::SigInputs },
            ..Conditions::default()
        };
        let conditions =
            SpendingConditions::P2PKConditions { data: key, conditions: Some(conditions) };
        let options = SendOptions {
            conditions: Some(conditions),
            use_p2bk: lock.blinded,
            ..SendOptions::default()
        };
        self.token_with(sat, options).await
    }

    /// A token with these spending conditions (NUT-10).
    pub async fn token_with(&self, sat: u64, options: SendOptions) -> Result<String> {
        let prepared = self
            .wallet
            .prepare_send(Amount::from(sat), options)
            .await
            .map_err(during("make a token"))?;
        Ok(prepared.confirm(None).await.map_err(during("make a token"))?.to_string())
    }

    /// Pays a payment request (NUT-18) where it says, as `cdk-cli pay-request` does.
    pub async fn pay_request(&self, request: &str) -> Result<()> {
        let request = request.parse().map_err(during("pay a payment request"))?;
        self.wallet
            .prepare_pay_request(request, None)
            .await
            .map_err(during("pay a payment request"))?
            .confirm()
            .await
            .map_err(during("pay a payment request"))
    }

    /// Receives a token; returns the net amount.
    pub async fn receive(&self, token: &str) -> Result<u64> {
        Ok(self
            .wallet
            .receive(token, ReceiveOptions::default())
            .await
            .map_err(during("receive a token"))?
            .to_u64())
    }

    /// The value of these tokens' unspent proofs, each counted once: what their holder could still
    /// redeem.
    pub async fn unspent(&self, tokens: &[String]) -> Result<u64> {
        let keysets = self
            .wallet
            .mint_connector()
            .get_mint_keysets()
            .await
            .map_err(during("ask for the proofs' states"))?
            .keysets;
        let mut proofs = HashMap::new();
        for token in tokens {
            let token: Token = token.parse().map_err(during("ask for the proofs' states"))?;
            for proof in token.proofs(&keysets).map_err(during("ask for the proofs' states"))? {
                proofs.insert(
                    proof.y().map_err(during("ask for the proofs' states"))?,
                    proof.amount.to_u64(),
                );
            }
        }
        if proofs.is_empty() {
            return Ok(0);
        }
        let request = cdk::nuts::CheckStateRequest { ys: proofs.keys().copied().collect() };
        let states = self
            .wallet
            .mint_connector()
            .post_check_state(request)
            .await
            .map_err(during("ask for the proofs' states"))?
            .states;
        let unspent = states.iter().filter(|state| state.state == cdk::nuts::State::Unspent);
        Ok(unspent.filter_map(|state| proofs.get(&state.y)).sum())
    }

    /// In sat.
    pub async fn balance(&self) -> Result<u64> {
        Ok(self.wallet.total_balance().await.map_err(during("read a balance"))?.to_u64())
    }
}
