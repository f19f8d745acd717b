//! A customer's wallet that the mint fills.

use crate::error::{Result, during};
use cdk::Amount;
use cdk::amount::SplitTarget;
use cdk::nuts::nut10::Conditions;
use cdk::nuts::{
    CurrencyUnit, PaymentMethod, PublicKey, SecretKey, SigFlag, SpendingConditions, Token,
    nut00::KnownMethod,
};
use cdk::wallet::{ReceiveOptions, SendOptions, Wallet};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const PAID_WITHIN: Duration = Duration::from_secs(30);
/// Of one request for tokens. A mint refuses more than twice as many.
const OUTPUTS: u32 = 500;

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
            .wait_and_mint_quote(quote, SplitTarget::default(), None, PAID_WITHIN)
            .await
            .map_err(during("fill a wallet"))?;
        Ok(())
    }

    /// So many tokens of this value, each with proofs of its own, hundreds by one request. They have
    /// all that comes into this empty wallet: it would pay with the same proofs.
    pub(crate) async fn into_tokens(self, count: usize, sat: u64) -> Result<Vec<String>> {
        let most = OUTPUTS.checked_div(sat.count_ones()).unwrap_or(1);
        let most = usize::try_from(most).unwrap_or(1);
        let mut tokens = Vec::with_capacity(count);
        while tokens.len() < count {
            let next = count.saturating_sub(tokens.len()).min(most);
            tokens.extend(self.minted_tokens(next, sat).await?);
        }
        Ok(tokens)
    }

    /// As many as one request makes, and not none.
    async fn minted_tokens(&self, count: usize, sat: u64) -> Result<Vec<String>> {
        let number = u64::try_from(count).map_err(during("mint tokens"))?;
        let quote = self.quote(sat.saturating_mul(number)).await?;
        let split = SplitTarget::Value(Amount::from(sat));
        let mut proofs = self
            .wallet
            .wait_and_mint_quote(quote, split, None, PAID_WITHIN)
            .await
            .map_err(during("mint tokens"))?;
        // Of each amount there are as many proofs as tokens.
        proofs.sort_by_key(|proof| proof.amount);
        let token = |first| {
            let own = proofs.iter().skip(first).step_by(count).cloned().collect();
            Token::new(self.wallet.mint_url.clone(), own, None, CurrencyUnit::Sat).to_string()
        };
        Ok((0..count).map(token).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestMint;
    use crate::token::without_dleq;

    /// More than one request makes: of ten proofs each.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_of_many_tokens_has_proofs_of_its_own() {
        const SAT: u64 = 1_023;
        const ALL: u64 = 60 * SAT;
        const WITHOUT_TWO: u64 = 58 * SAT;
        let mint = TestMint::start(0).await.unwrap();
        let tokens = mint.tokens(60, SAT).await.unwrap();
        assert_eq!(tokens.len(), 60);
        let wallet = TestWallet::new(mint.url()).await.unwrap();
        // Each proof counts once.
        assert_eq!(wallet.unspent(&tokens).await.unwrap(), ALL);
        for token in [&tokens[0], &tokens[59]] {
            assert_ne!(without_dleq(token).unwrap(), *token, "the mint proves its signatures");
            assert_eq!(wallet.receive(token).await.unwrap(), SAT);
        }
        assert_eq!(wallet.unspent(&tokens).await.unwrap(), WITHOUT_TWO);
    }
}
