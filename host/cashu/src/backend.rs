//! [`CashuWallet`] as the order service's wallet.

use crate::compute::{Effort, compute, compute_sized};
use crate::error::{MintWalletError, Unresolved};
use crate::keyset::gross_of;
use crate::mint_wallet::MintWallet;
use crate::operation::{OperationOutcome, OperationState, total};
use crate::purpose::Purpose;
use crate::refusal;
use crate::token;
use crate::token_format;
use crate::verify::DleqPolicy;
use crate::wallet::{CashuWallet, HealthCheck, MintStatus};
use async_trait::async_trait;
use cdk::nuts::{CurrencyUnit, Transport, TransportType};
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::{
    MintDirectory, MintRecoveryFailure, MintReport, PaymentRequest, Payments, ReceiveError,
    RecoveryError, RecoveryFailure, RefundAmount, RefundIssuer, RefundState, RefundToken,
    Resolution, ResolveMode, TokenInfo, TokenReader, WalletError,
};
use paygress_core::limits;
use paygress_core::model::ids::{MintUrl, OrderId, P2pkPubkey};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use std::time::Duration;

/// How long the start waits for each mint's recovery. Afterwards only that mint's orders wait.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

fn wallet_error(error: MintWalletError) -> WalletError {
    match error {
        MintWalletError::Store(error) => WalletError::store(error),
        MintWalletError::Unresolved(reason) => WalletError::unresolved(*reason),
        error => WalletError::failed(error),
    }
}

fn unresolved(reason: Unresolved) -> WalletError {
    WalletError::unresolved(reason)
}

impl CashuWallet {
    fn existing_wallet_of(&self, mint: &MintUrl) -> Result<&MintWallet, WalletError> {
        self.wallets.get(mint).ok_or_else(|| WalletError::UnknownMint(mint.clone()))
    }

    async fn receive_token(
        &self,
        wallet: &MintWallet,
        purpose: &Purpose,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        self.yield_to_proven(wallet, token, token_info, DleqPolicy::Optional).await?;
        let proofs = self.spendable_proofs(wallet, token).await?;
        match wallet.receive(purpose, proofs).await {
            Ok(OperationOutcome::Done(operation)) => Ok(Sat(operation.data.received)),
            Ok(OperationOutcome::SpentElsewhere) => Err(refusal::spent().into()),
            Ok(OperationOutcome::Failed(Some(error))) => Err(refusal::of_mint_error(&error).into()),
            Ok(OperationOutcome::Failed(None)) => Err(refusal::not_taken().into()),
            Ok(OperationOutcome::Unknown(reason)) => Err(ReceiveError::Unknown(unresolved(reason))),
            // The operation may have been stored before the database failed.
            Err(MintWalletError::Store(error)) => {
                Err(ReceiveError::Unknown(WalletError::store(error)))
            }
            Err(error) => Err(refusal::of_wallet_error(&error).into()),
        }
    }
}

#[async_trait]
impl TokenReader for CashuWallet {
    async fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal> {
        let effort = Effort::of_text(token.expose());
        let (token, accepted) = (token.clone(), self.accepted.clone());
        let key = self.p2pk_secret_key.clone();
        let decode = move || token::decode(token.expose(), &accepted, key.as_ref());
        compute_sized(effort, decode).await
    }

    async fn verify(&self, token: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal> {
        self.verify_token(token, token_info, DleqPolicy::Optional).await
    }

    async fn verify_dleq(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Payment, Refusal> {
        self.verify_token(token, token_info, DleqPolicy::Required).await
    }

    async fn is_proven(&self, token: &Secret, token_info: &TokenInfo) -> bool {
        let Some(wallet) = self.wallets.get(&token_info.mint) else { return false };
        if wallet.is_known_spent(token_info) {
            return false;
        }
        let (effort, token) = (Effort::of_text(token.expose()), token.clone());
        match compute_sized(effort, move || token_format::parse(token.expose())).await {
            Ok(token) => wallet.is_proven(&token).await,
            Err(_) => false,
        }
    }

    async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        let payload = payload.to_owned();
        compute(move || token_from_payload(&payload)).await
    }
}

#[async_trait]
impl Payments for CashuWallet {
    async fn receive(
        &self,
        order: &OrderId,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        let wallet = self.wallet_of(&token_info.mint)?;
        let purpose = Purpose::Receive { order: order.clone() };
        let refusal = match self.receive_token(wallet, &purpose, token, token_info).await {
            Err(ReceiveError::Refused(refusal)) => refusal,
            known => return known,
        };
        // Another replica that had the order before may still be on its way to the mint.
        match wallet.close(&purpose, OperationOutcome::Failed(None)).await {
            Ok(OperationOutcome::Done(operation)) => Ok(Sat(operation.data.received)),
            Ok(OperationOutcome::Failed(_) | OperationOutcome::SpentElsewhere) => {
                Err(refusal.into())
            }
            Ok(OperationOutcome::Unknown(reason)) => Err(ReceiveError::Unknown(unresolved(reason))),
            Err(error) => Err(ReceiveError::Unknown(wallet_error(error))),
        }
    }

    async fn resolve(
        &self,
        order: &OrderId,
        token_info: &TokenInfo,
        mode: ResolveMode,
    ) -> Resolution {
        let wallet = match self.existing_wallet_of(&token_info.mint) {
            Ok(wallet) => wallet,
            Err(error) => return Resolution::Unknown(error),
        };
        let purpose = Purpose::Receive { order: order.clone() };
        let outcome = match mode {
            ResolveMode::Repeat => wallet.resume_latest(&purpose).await,
            ResolveMode::CheckOnly => wallet.close_latest(&purpose).await,
        };
        match outcome {
            Ok(OperationOutcome::Done(operation)) => {
                Resolution::Received(Sat(operation.data.received))
            }
            Ok(OperationOutcome::Failed(_)) => Resolution::NotSpent,
            Ok(OperationOutcome::SpentElsewhere) => Resolution::SpentElsewhere,
            Ok(OperationOutcome::Unknown(reason)) => Resolution::Unknown(unresolved(reason)),
            Err(error) => Resolution::Unknown(wallet_error(error)),
        }
    }

    async fn has_room(&self) -> bool {
        self.store.database.has_room(limits::DISK_RESERVE).await
    }

    async fn recover(&self) -> Result<(), RecoveryError> {
        if let Err(error) = self.claim_keysets().await {
            let failure = || RecoveryFailure::Failed(WalletError::store(error.clone()));
            let of_mint =
                |mint: &MintUrl| MintRecoveryFailure { mint: mint.clone(), failure: failure() };
            return Err(RecoveryError { mints: self.wallets.keys().map(of_mint).collect() });
        }
        let recoveries = self.wallets.iter().map(|(mint, wallet)| async move {
            let failure = match tokio::time::timeout(RECOVERY_TIMEOUT, wallet.recover()).await {
                Ok(Ok(0)) => return None,
                Ok(Ok(operations)) => RecoveryFailure::Open { operations },
                Ok(Err(error)) => RecoveryFailure::Failed(wallet_error(error)),
                Err(_) => RecoveryFailure::Timeout,
            };
            Some(MintRecoveryFailure { mint: mint.clone(), failure })
        });
        let failures = futures::future::join_all(recoveries).await;
        let mints: Vec<MintRecoveryFailure> = failures.into_iter().flatten().collect();
        if mints.is_empty() { Ok(()) } else { Err(RecoveryError { mints }) }
    }
}

#[async_trait]
impl RefundIssuer for CashuWallet {
    async fn refund(
        &self,
        order: &OrderId,
        mint: &MintUrl,
        amount: RefundAmount,
    ) -> Result<RefundToken, WalletError> {
        let wallet = self.existing_wallet_of(mint)?;
        let purpose = Purpose::Refund { order: order.clone() };
        let sent = wallet.send_refund(&purpose, amount).await.map_err(wallet_error)?;
        let data = &sent.operation.data;
        Ok(RefundToken {
            token: Secret::new(sent.token.to_string()),
            amount: Sat(data.sent),
            fee: Sat(data.fee),
        })
    }

    async fn refund_state(
        &self,
        order: &OrderId,
        mint: &MintUrl,
    ) -> Result<RefundState, WalletError> {
        let wallet = self.existing_wallet_of(mint)?;
        // Proofs that we have begun to reclaim are not the customer's redemption.
        let reclaim = Purpose::Reclaim { order: order.clone() };
        let reclaim = self.store.latest(&reclaim).await.map_err(WalletError::store)?;
        if reclaim.is_some_and(|reclaim| reclaim.state != OperationState::Failed) {
            return Ok(RefundState::Waiting);
        }
        let purpose = Purpose::Refund { order: order.clone() };
        if !wallet.is_redeemed(&purpose).await.map_err(wallet_error)? {
            return Ok(RefundState::Waiting);
        }
        self.store.forget_sent(&purpose).await.map_err(WalletError::store)?;
        Ok(RefundState::Redeemed)
    }

    async fn reclaim(&self, order: &OrderId, mint: &MintUrl) -> Result<Option<Sat>, WalletError> {
        let wallet = self.existing_wallet_of(mint)?;
        let refund = Purpose::Refund { order: order.clone() };
        let reclaim = Purpose::Reclaim { order: order.clone() };
        let proofs = self.store.sent(&refund).await.map_err(WalletError::store)?;
        let outcome = match wallet.resume_latest(&reclaim).await.map_err(wallet_error)? {
            OperationOutcome::Failed(_) => {
                if total(&proofs) <= wallet.fee(&proofs).await.map_err(wallet_error)? {
                    // The mint's fee would take all of it: the customer may keep it.
                    return Ok(Some(Sat(0)));
                }
                wallet.receive(&reclaim, proofs).await.map_err(wallet_error)?
            }
            known => known,
        };
        let reclaimed = match outcome {
            OperationOutcome::Done(operation) => Some(Sat(operation.data.received)),
            OperationOutcome::SpentElsewhere => None,
            OperationOutcome::Failed(Some(error)) => return Err(WalletError::failed(error)),
            OperationOutcome::Failed(None) => {
                return Err(WalletError::failed(MintWalletError::Unfinished));
            }
            OperationOutcome::Unknown(reason) => return Err(unresolved(reason)),
        };
        self.store.forget_sent(&refund).await.map_err(WalletError::store)?;
        Ok(reclaimed)
    }
}

#[async_trait]
impl MintDirectory for CashuWallet {
    fn mints(&self) -> Vec<MintUrl> {
        self.accepted_mints()
    }

    fn p2pk_pubkey(&self) -> Option<P2pkPubkey> {
        self.p2pk_public_key().map(|key| P2pkPubkey::from_bytes(key.to_bytes()))
    }

    fn payment_request(&self, request: &PaymentRequest) -> String {
        let transport = |target: &String| Transport {
            _type: TransportType::HttpPost,
            target: target.clone(),
            tags: Vec::new(),
        };
        // The mint is the payer's choice: at none of them less than the amount is left.
        let mints = self.accepted_mints();
        let wallets = mints.iter().filter_map(|mint| self.wallets.get(mint));
        let fee_ppk = wallets.map(|wallet| wallet.client.input_fee_ppk()).max().unwrap_or(0);
        let request = cdk::nuts::PaymentRequest {
            payment_id: None,
            amount: Some(gross_of(request.amount.0, fee_ppk).into()),
            unit: Some(CurrencyUnit::Sat),
            single_use: Some(true),
            mints: self.accepted.iter().filter_map(|mint| mint.as_str().parse().ok()).collect(),
            mint_preferred: None,
            supported_methods: Vec::new(),
            description: request.description.clone(),
            transports: request.target.iter().map(transport).collect(),
            nut10: None,
        };
        request.to_string()
    }

    async fn report(&self) -> Result<Vec<MintReport>, WalletError> {
        let report = |status: MintStatus| MintReport {
            held: status.balance.held(),
            mint: status.balance.mint,
            accepted: status.accepted,
            fault: status.health.last_error,
            answered_in_ms: status
                .health
                .latency
                .and_then(|latency| u64::try_from(latency.as_millis()).ok()),
        };
        let overview = self.overview(HealthCheck::Cached).await.map_err(WalletError::store)?;
        Ok(overview.into_iter().map(report).collect())
    }
}

fn token_from_payload(payload: &str) -> Result<Secret, Refusal> {
    let payload = token_format::parse_payload(payload)?;
    if payload.proofs.is_empty() || payload.proofs.len() > limits::TOKEN_PROOFS {
        return Err(Refusal::new(
            ErrorType::InvalidToken,
            format!("a payment has 1 to {} proofs", limits::TOKEN_PROOFS),
        ));
    }
    payload.to_text().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use crate::testing::{FakeMint, OneKey};
    use crate::wallet::Settings;
    use crate::wallet_store::WalletStore;
    use cdk::nuts::Token;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    async fn replica(mint: &FakeMint, directory: &Path) -> CashuWallet {
        let store = WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap();
        let seed = Seed::load_or_create(&directory.join("mnemonic")).await.unwrap();
        let mints = vec![MintUrl::parse(&mint.url).unwrap()];
        let settings = Settings { mints, max_balance: None, p2pk_secret_key: None };
        CashuWallet::open(store, seed, &settings).await.unwrap()
    }

    /// It had the order before, and has not begun its swap when the other one gives the order up.
    #[tokio::test]
    async fn a_token_whose_order_was_refused_is_not_taken_by_a_slower_replica() {
        let (key, refuses) = (OneKey::new(), Arc::new(AtomicBool::new(true)));
        let (proof, does_refuse) = (key.proof(), Arc::clone(&refuses));
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" => key.keysets(0),
            "/v1/swap" if does_refuse.load(Ordering::SeqCst) => {
                ("400 Bad Request", r#"{"code":10001,"detail":"not now"}"#.to_owned())
            }
            "/v1/swap" => key.signed(body),
            "/v1/restore" => OneKey::none_signed(),
            "/v1/checkstate" => OneKey::unspent(body),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let first = replica(&mint, directory.path()).await;
        let second = replica(&mint, directory.path()).await;
        let url = mint.url.parse().unwrap();
        let token = Token::new(url, vec![proof], None, CurrencyUnit::Sat).to_string();
        let token = Secret::new(token);
        let info = first.decode(&token).await.unwrap();
        let is_refused = async |wallet: &CashuWallet, order: &OrderId| {
            let received = wallet.receive(order, &token, &info).await;
            matches!(received, Err(ReceiveError::Refused(_)))
        };
        let (refused, abandoned) = (OrderId::random(), OrderId::random());
        assert!(is_refused(&first, &refused).await);
        refuses.store(false, Ordering::SeqCst);
        let resolved = first.resolve(&abandoned, &info, ResolveMode::CheckOnly).await;
        assert!(matches!(resolved, Resolution::NotSpent), "{resolved:?}");
        for order in [&refused, &abandoned] {
            assert!(is_refused(&second, order).await, "it was taken for nothing");
        }
        assert_eq!(second.balances().await.unwrap(), []);
        // The token is still good.
        let received = second.receive(&OrderId::random(), &token, &info).await;
        assert_eq!(received.unwrap(), Sat(1));
    }
}
