//! What a token is worth, checked without spending it.

use crate::compute::Effort;
use crate::conditions;
use crate::error::MintError;
use crate::keyset::proofs_of_keysets;
use crate::mint_wallet::MintWallet;
use crate::operation::held_at;
use crate::refusal;
use crate::token_format;
use crate::wallet::CashuWallet;
use cdk::nuts::{KeySetInfo, Proof, Proofs, PublicKey, State};
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::{TokenInfo, TokenReader};
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
        let (effort, token) = (Effort::of_text(token.expose()), token.clone());
        let share = &wallet.client.share;
        let parse = move || token_format::parse(token.expose());
        let token = share.compute_sized(effort, parse).await?;
        let is_missing = |keysets: &[KeySetInfo]| proofs_of_keysets(&token, keysets).is_none();
        let refused = |error| refusal::of_wallet_error(&error);
        let keysets = wallet.keysets_now(is_missing).await.map_err(refused)?;
        let mut proofs =
            proofs_of_keysets(&token, &keysets.all).ok_or_else(refusal::foreign_keys)?;
        for proof in &proofs {
            keysets.get(proof.keyset_id).map_err(refused)?;
        }
        let (effort, key) = (Effort::of_proofs(proofs.len()), self.p2pk_secret_key.clone());
        let sign = move || {
            conditions::sign(&mut proofs, key.as_ref(), UnixTime::now())?;
            Ok(proofs)
        };
        share.compute_sized(effort, sign).await
    }

    pub(crate) async fn verify_token(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
        dleq_policy: DleqPolicy,
    ) -> Result<Payment, Refusal> {
        let wallet = self.wallet_of(&token_info.mint)?;
        self.require_foreign(token_info).await?;
        // Not before: an order that was paid with it is found again by its proofs.
        if wallet.is_known_spent(token_info) {
            return Err(refusal::spent());
        }
        self.require_balance_limit(&token_info.mint, token_info.gross).await?;
        self.yield_to_proven(wallet, token, token_info, dleq_policy).await?;
        let proofs = self.spendable_proofs(wallet, token).await?;
        require_signable(wallet, &proofs, dleq_policy).await?;
        let fee = wallet.fee(&proofs).await.map_err(|error| refusal::of_wallet_error(&error))?;
        let net = net_of_fee(token_info.gross, fee)?;
        let outputs = wallet.outputs_for_payment(net.0).await;
        outputs.map_err(|error| refusal::of_wallet_error(&error))?;
        let ys = curve_points(wallet, token_info).await?;
        let states = wallet.client.states_of_token(&ys).await;
        let states = states.map_err(|error| not_verified(wallet, &error))?;
        if states.contains(&State::Spent) {
            return Err(refusal::spent());
        }
        if states.iter().any(|state| *state != State::Unspent) {
            return Err(refusal::pending());
        }
        Ok(Payment { mint: token_info.mint.clone(), gross: token_info.gross, fee: Sat(fee), net })
    }

    /// While the mint limits our requests, what it still serves is for tokens that cannot be
    /// invented. Orders of others wait; who has no order is refused, since that costs nothing.
    pub(crate) async fn yield_to_proven(
        &self,
        wallet: &MintWallet,
        token: &Secret,
        token_info: &TokenInfo,
        dleq_policy: DleqPolicy,
    ) -> Result<(), Refusal> {
        let pause = wallet.client.rate_limit.remaining();
        if pause.is_zero() || self.is_proven(token, token_info).await {
            return Ok(());
        }
        if dleq_policy == DleqPolicy::Required {
            return Err(refusal::rate_limited());
        }
        tokio::time::sleep(pause).await;
        Ok(())
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

/// Refuses proofs of which keys or DLEQ proofs show that the mint has not signed them.
async fn require_signable(
    wallet: &MintWallet,
    proofs: &[Proof],
    dleq_policy: DleqPolicy,
) -> Result<(), Refusal> {
    let lacks_dleq = proofs.iter().any(|proof| proof.dleq.is_none());
    if dleq_policy == DleqPolicy::Required && lacks_dleq {
        return Err(refusal::invalid_token(
            "the token's proofs do not show that the mint has signed them: send it with its DLEQ proofs (NUT-12)",
        ));
    }
    if let Some(proof) = wallet.find_unsignable(proofs).await {
        return Err(refusal::no_key(proof.keyset_id, proof.amount.to_u64()));
    }
    match wallet.verify_dleqs(proofs).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refusal::invalid_token(
            "the token is forged: its proofs are not of the mint's keys",
        )),
        Err(error) => Err(not_verified(wallet, &error)),
    }
}

fn not_verified(wallet: &MintWallet, error: &MintError) -> Refusal {
    tracing::warn!(mint = %wallet.mint, %error, "token was not verified");
    refusal::of_mint_error(error)
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
    let (effort, ys) = (Effort::of_proofs(token_info.ys.len()), token_info.ys.clone());
    let points = move || {
        let point = |y: &str| PublicKey::from_hex(y).map_err(|_| refusal::unusable_secret());
        ys.iter().map(|y| point(y.as_str())).collect()
    };
    wallet.client.share.compute_sized(effort, points).await
}

#[cfg(test)]
mod tests {
    use crate::purpose::Purpose;
    use crate::seed::Seed;
    use crate::testing::{Answer, FakeMint, OneKey, Warnings};
    use crate::wallet::{CashuWallet, HealthCheck, Settings};
    use crate::wallet_store::WalletStore;
    use cdk::Amount;
    use cdk::nuts::{CurrencyUnit, Id, Proof, SecretKey, Token};
    use paygress_core::backend::policy::Payment;
    use paygress_core::backend::wallet::{Payments, ReceiveError, TokenReader};
    use paygress_core::limits;
    use paygress_core::model::ids::{MintUrl, OrderId};
    use paygress_core::model::refusal::{ErrorType, Refusal};
    use paygress_core::model::secret::Secret;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use tokio::task::JoinSet;

    /// What a mint serves in a second.
    const RATE: usize = 20;

    /// A mint's rate limit.
    struct RateLimit {
        begun: Instant,
        requests: usize,
    }

    /// A mint that serves so many requests in a second, and one token; how many were too many.
    async fn limited_mint(key: OneKey, honest: &Proof) -> (FakeMint, Arc<AtomicUsize>) {
        let window = Mutex::new(RateLimit { begun: Instant::now(), requests: 0 });
        let refused = Arc::new(AtomicUsize::new(0));
        let (secret, counted) = (honest.secret.to_string(), Arc::clone(&refused));
        let is_served = move || {
            let mut window = window.lock().unwrap();
            if window.begun.elapsed() >= Duration::from_secs(1) {
                *window = RateLimit { begun: Instant::now(), requests: 0 };
            }
            window.requests = window.requests.saturating_add(1);
            window.requests <= RATE
        };
        let mint = FakeMint::start(move |path, body| -> Answer {
            if !is_served() {
                counted.fetch_add(1, Ordering::SeqCst);
                return ("429 Too Many Requests\r\nretry-after: 1", String::new());
            }
            match path {
                "/v1/keysets" => key.keysets(0),
                "/v1/swap" if String::from_utf8_lossy(body).contains(&secret) => key.signed(body),
                "/v1/swap" => ("400 Bad Request", r#"{"code":10001,"detail":"forged"}"#.to_owned()),
                "/v1/restore" => OneKey::none_signed(),
                "/v1/checkstate" => OneKey::unspent(body),
                _ => key.keys(),
            }
        })
        .await;
        (mint, refused)
    }

    async fn wallet_of(mint: &str, directory: &Path) -> CashuWallet {
        let store = WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap();
        let seed = Seed::load_or_create(&directory.join("mnemonic")).await.unwrap();
        let mints = vec![MintUrl::parse(mint).unwrap()];
        let settings = Settings { mints, max_balance: None, p2pk_secret_key: None };
        CashuWallet::open(store, seed, &settings).await.unwrap()
    }

    fn token(mint: &str, proof: Proof) -> Secret {
        token_with(mint, vec![proof])
    }

    fn token_with(mint: &str, proofs: Vec<Proof>) -> Secret {
        let token = Token::new(mint.parse().unwrap(), proofs, None, CurrencyUnit::Sat);
        Secret::new(token.to_string())
    }

    fn forged(mint: &str, keyset: Id) -> Secret {
        forged_over(mint, keyset, &[1])
    }

    fn forged_over(mint: &str, keyset: Id, amounts: &[u64]) -> Secret {
        let proof = |amount: &u64| {
            let c = SecretKey::generate().public_key();
            Proof::new(Amount::from(*amount), keyset, cdk::secret::Secret::generate(), c)
        };
        token_with(mint, amounts.iter().map(proof).collect())
    }

    async fn verify(wallet: &CashuWallet, token: &Secret) -> Result<Payment, Refusal> {
        let token_info = wallet.decode(token).await.unwrap();
        wallet.verify(token, &token_info).await
    }

    #[tokio::test]
    async fn a_forged_token_that_its_keyset_has_no_key_for_is_refused_before_any_swap() {
        let (key, old) = (OneKey::new(), OneKey::new());
        let (id, old_id) = (key.keyset.id, old.keyset.id);
        let old_keys = format!("/v1/keys/{old_id}");
        let failed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&failed);
        let mint = FakeMint::start(move |path, body| match path {
            // The keys of the old one cannot be loaded.
            path if path == old_keys => {
                counted.fetch_add(1, Ordering::SeqCst);
                ("404 Not Found", "{}".to_owned())
            }
            "/v1/keysets" => key.keysets_with(&old),
            "/v1/checkstate" => OneKey::unspent(body),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = wallet_of(&mint.url, directory.path()).await;
        for (amounts, named) in [(vec![3], 3), (vec![8], 8), (vec![1, 0], 0)] {
            let refusal = verify(&wallet, &forged_over(&mint.url, id, &amounts)).await.unwrap_err();
            assert_eq!(refusal.code, ErrorType::InvalidToken);
            let reason = format!("{id} has no key for a proof of {named} sat");
            assert!(refusal.message.contains(&reason), "{refusal}");
        }
        verify(&wallet, &forged(&mint.url, id)).await.unwrap();
        // That is for the mint to say, and no order requests the keys again and again.
        for _ in 0..20 {
            verify(&wallet, &forged(&mint.url, old_id)).await.unwrap();
        }
        // One of the orders, and one in the background.
        assert!((1..=2).contains(&failed.load(Ordering::SeqCst)), "{failed:?}");
    }

    #[tokio::test]
    async fn tokens_of_invented_keysets_wait_for_no_list_and_a_new_one_is_found_at_once() {
        let (key, new) = (OneKey::new(), OneKey::new());
        let (id, honest) = (key.keyset.id, new.proof());
        let (is_rotated, lists) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (does_list_both, counted) = (Arc::clone(&is_rotated), Arc::clone(&lists));
        let keys_of_new = format!("/v1/keys/{}", new.keyset.id);
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" => {
                counted.fetch_add(1, Ordering::SeqCst);
                let both = does_list_both.load(Ordering::SeqCst);
                if both { key.keysets_with(&new) } else { key.keysets(0) }
            }
            "/v1/checkstate" => OneKey::unspent(body),
            path if path == keys_of_new => new.keys(),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = wallet_of(&mint.url, directory.path()).await;
        verify(&wallet, &forged(&mint.url, id)).await.unwrap();
        is_rotated.store(true, Ordering::SeqCst);
        verify(&wallet, &token(&mint.url, honest)).await.unwrap();
        assert_eq!(lists.load(Ordering::SeqCst), 2);
        let begun = Instant::now();
        for n in 0..100_u32 {
            let invented = format!("00{n:014x}").parse().unwrap();
            let refusal = verify(&wallet, &forged(&mint.url, invented)).await.unwrap_err();
            assert_eq!(refusal.code, ErrorType::InvalidToken);
            assert!(refusal.message.contains("keyset is none of the mint's"), "{refusal}");
        }
        // Each would have waited for half a second.
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        let allowed = begun.elapsed().as_millis() / 500 + begun.elapsed().as_millis() / 5_000 + 8;
        let lists = lists.load(Ordering::SeqCst);
        assert!(u128::try_from(lists).unwrap() <= allowed, "{lists} lists");
    }

    #[tokio::test]
    async fn forged_tokens_write_no_warning_each() {
        let key = OneKey::new();
        let (id, swaps) = (key.keyset.id, Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&swaps);
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" => key.keysets(0),
            "/v1/swap" => {
                counted.fetch_add(1, Ordering::SeqCst);
                ("400 Bad Request", r#"{"code":10001,"detail":"forged"}"#.to_owned())
            }
            "/v1/restore" => OneKey::none_signed(),
            "/v1/checkstate" => OneKey::unspent(body),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = wallet_of(&mint.url, directory.path()).await;
        let warnings = Arc::default();
        let _logged = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
        for _ in 0..5 {
            let token = forged(&mint.url, id);
            verify(&wallet, &token).await.unwrap();
            let token_info = wallet.decode(&token).await.unwrap();
            let received = wallet.receive(&OrderId::random(), &token, &token_info).await;
            assert!(
                matches!(&received, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::InvalidToken),
                "{received:?}"
            );
        }
        assert_eq!((swaps.load(Ordering::SeqCst), warnings.load(Ordering::SeqCst)), (5, 0));
    }

    /// One order after the other, as fast as they are served.
    async fn flood(wallet: Arc<CashuWallet>, mint: String, keyset: Id, orders: Arc<AtomicUsize>) {
        loop {
            let token = forged(&mint, keyset);
            let token_info = wallet.decode(&token).await.unwrap();
            if wallet.verify(&token, &token_info).await.is_ok() {
                let outcome = wallet.receive(&OrderId::random(), &token, &token_info).await;
                assert!(outcome.is_err(), "{outcome:?}");
            }
            orders.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// As an order does, whose payment is repeated while it is unknown.
    async fn receive(wallet: &CashuWallet, mint: &str, token: &Secret) {
        let token_info = wallet.decode(token).await.unwrap();
        assert!(wallet.is_proven(token, &token_info).await);
        wallet.verify(token, &token_info).await.unwrap();
        let order = OrderId::random();
        match wallet.receive(&order, token, &token_info).await {
            Ok(_) => return,
            Err(ReceiveError::Unknown(_)) => {}
            Err(ReceiveError::Refused(refusal)) => panic!("{refusal}"),
        }
        let wallet = &wallet.wallets[&MintUrl::parse(mint).unwrap()];
        let purpose = Purpose::Receive { order };
        while wallet.store.unspent(&wallet.mint).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            wallet.resume_latest(&purpose).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_that_uses_up_a_mints_rate_limit_closes_it_to_no_proven_token() {
        const LONGEST: Duration = Duration::from_secs(8);
        // A machine that did not let this program run is no fault of the wallet's.
        let mut took = receive_in_a_flood().await;
        for _ in 0..2 {
            if took >= LONGEST {
                took = receive_in_a_flood().await;
            }
        }
        assert!(took < LONGEST, "{took:?}");
    }

    /// How long a proven token takes while others use up the mint's rate limit.
    async fn receive_in_a_flood() -> Duration {
        let key = OneKey::new();
        let (keyset, honest) = (key.keyset.id, key.proof());
        let (mint, refused) = limited_mint(key, &honest).await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = Arc::new(wallet_of(&mint.url, directory.path()).await);
        let (honest, first) = (token(&mint.url, honest), forged(&mint.url, keyset));
        // The mint's keys are known.
        let token_info = wallet.decode(&first).await.unwrap();
        wallet.verify(&first, &token_info).await.unwrap();
        let (mut crowd, orders) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..limits::UNPROVEN_AT_ONCE {
            crowd.spawn(flood(Arc::clone(&wallet), mint.url.clone(), keyset, Arc::clone(&orders)));
        }
        let begun = Instant::now();
        while refused.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the mint serves all");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        receive(&wallet, &mint.url, &honest).await;
        let took = begun.elapsed();
        // Who has no order is not kept waiting.
        let second = forged(&mint.url, keyset);
        let token_info = wallet.decode(&second).await.unwrap();
        let client = &wallet.wallets[&token_info.mint].client;
        client.rate_limit.record(&client.url, Some(Duration::from_secs(15)));
        let refusal = wallet.verify_dleq(&second, &token_info).await.unwrap_err();
        assert!(refusal.message.contains("limits"), "{refusal}");
        let (orders, refused) = (orders.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
        println!("{orders} forged orders, {refused} times 429: a proven one took {took:.1?}");
        assert!(crowd.try_join_next().is_none(), "the flood goes on");
        let overview = wallet.overview(HealthCheck::Cached).await.unwrap();
        let health = &overview[0].health;
        assert!(health.failures == 0 && health.suspended_until.is_none(), "{health:?}");
        took
    }
}
