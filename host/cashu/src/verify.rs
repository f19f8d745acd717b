//! What a token is worth, checked without spending it.

use crate::conditions;
use crate::error::MintError;
use crate::keyset::proofs_of_keysets;
use crate::mint_wallet::MintWallet;
use crate::operation::held_at;
use crate::refusal;
use crate::token_format;
use crate::wallet::CashuWallet;
use cdk::nuts::{KeySetInfo, Proofs, PublicKey, State};
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::TokenInfo;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, UnixTime};

/// Which proofs must carry a DLEQ proof (NUT-12). Those that are there must be valid in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DleqPolicy {
    Optional,
    Required,
}

impl CashuWallet {
    pub(crate) fn wallet_of(&self, mint: &MintUrl) -> Result<&MintWallet, Refusal> {
        self.wallets.get(mint).ok_or_else(|| {
            Refusal::new(
                ErrorType::NonWhitelistedMint,
                format!("tokens of {mint} are not accepted"),
            )
        })
    }

    /// The token's proofs, with full keyset ids, and signed where they are locked to us.
    pub(crate) async fn spendable_proofs(
        &self,
        wallet: &MintWallet,
        token: &Secret,
    ) -> Result<Proofs, Refusal> {
        let token = token.clone();
        let share = &wallet.client.share;
        let token = share.compute(move || token_format::parse(token.expose())).await?;
        let is_missing = |keysets: &[KeySetInfo]| proofs_of_keysets(&token, keysets).is_none();
        let refused = |error| refusal::of_wallet_error(&error);
        let keysets = wallet.keysets(is_missing).await.map_err(refused)?;
        let mut proofs =
            proofs_of_keysets(&token, &keysets.all).ok_or_else(refusal::foreign_keys)?;
        for proof in &proofs {
            keysets.get(proof.keyset_id).map_err(refused)?;
        }
        let key = self.p2pk_secret_key.clone();
        let sign = move || {
            conditions::sign(&mut proofs, key.as_ref(), UnixTime::now())?;
            Ok(proofs)
        };
        share.compute(sign).await
    }

    pub(crate) async fn verify_token(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
        dleq_policy: DleqPolicy,
    ) -> Result<Payment, Refusal> {
        let wallet = self.wallet_of(&token_info.mint)?;
        let mint_refusal = |error: MintError| {
            tracing::warn!(mint = %token_info.mint, %error, "token was not verified");
            refusal::of_mint_error(&error)
        };
        self.require_foreign(token_info).await?;
        // Not before: an order that was paid with it is found again by its proofs.
        if wallet.is_known_spent(token_info) {
            return Err(refusal::spent());
        }
        self.require_balance_limit(&token_info.mint, token_info.gross).await?;
        let proofs = self.spendable_proofs(wallet, token).await?;
        let lacks_dleq = proofs.iter().any(|proof| proof.dleq.is_none());
        if dleq_policy == DleqPolicy::Required && lacks_dleq {
            return Err(refusal::invalid_token(
                "the token's proofs do not show that the mint has signed them: send it with its DLEQ proofs (NUT-12)",
            ));
        }
        if !wallet.verify_dleqs(&proofs).await.map_err(mint_refusal)? {
            return Err(refusal::invalid_token(
                "the token is forged: its proofs are not of the mint's keys",
            ));
        }
        let fee = wallet.fee(&proofs).await.map_err(|error| refusal::of_wallet_error(&error))?;
        let net = net_of_fee(token_info.gross, fee)?;
        let outputs = wallet.outputs_for_payment(net.0).await;
        outputs.map_err(|error| refusal::of_wallet_error(&error))?;
        let ys = curve_points(wallet, token_info).await?;
        let states = wallet.client.states(&ys).await.map_err(mint_refusal)?;
        if states.contains(&State::Spent) {
            return Err(refusal::spent());
        }
        if states.iter().any(|state| *state != State::Unspent) {
            return Err(refusal::pending());
        }
        Ok(Payment {
            mint: token_info.mint.as_str().to_owned(),
            gross: token_info.gross,
            fee: Sat(fee),
            net,
        })
    }

    /// Refuses a token that this wallet has made.
    async fn require_foreign(&self, token_info: &TokenInfo) -> Result<(), Refusal> {
        let ys = token_info.ys.iter().map(|y| y.as_str().to_owned()).collect();
        match self.store.has_any(ys).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(refusal::invalid_token(
                "this token was made by this service, as a refund; redeem it in your wallet, and pay with a fresh one",
            )),
            Err(error) => Err(refusal::of_store_error(&error)),
        }
    }

    async fn require_balance_limit(&self, mint: &MintUrl, gross: Sat) -> Result<(), Refusal> {
        let Some(limit) = self.max_balance else { return Ok(()) };
        let balances = self.balances().await.map_err(|error| refusal::of_store_error(&error))?;
        if held_at(&balances, mint).plus(gross) <= limit {
            return Ok(());
        }
        let others: Vec<&str> =
            self.wallets.keys().filter(|other| *other != mint).map(MintUrl::as_str).collect();
        let remedy = match others.as_slice() {
            [] => "try again later".to_owned(),
            others => format!("pay with a token of {}", others.join(" or ")),
        };
        Err(refusal::balance_limit(&remedy))
    }
}

fn net_of_fee(gross: Sat, fee: u64) -> Result<Sat, Refusal> {
    gross.0.checked_sub(fee).filter(|net| *net > 0).map(Sat).ok_or_else(|| {
        Refusal::new(
            ErrorType::InsufficientPayment,
            format!("the mint's fee of {fee} sat takes all of the token's {gross}"),
        )
    })
}

async fn curve_points(
    wallet: &MintWallet,
    token_info: &TokenInfo,
) -> Result<Vec<PublicKey>, Refusal> {
    let ys = token_info.ys.clone();
    let points = move || {
        let point = |y: &str| PublicKey::from_hex(y).map_err(|_| refusal::unusable_secret());
        ys.iter().map(|y| point(y.as_str())).collect()
    };
    wallet.client.share.compute(points).await
}
