//! A mint that answers as a test says, and a wallet of it.

use crate::client::MintClient;
use crate::http::JsonClient;
use crate::mint_wallet::MintWallet;
use crate::seed::Seed;
use crate::wallet_store::WalletStore;
use cdk::Amount;
use cdk::dhke::{blind_message, construct_proofs, sign_message};
use cdk::nuts::{
    BlindSignature, CheckStateRequest, CurrencyUnit, Id, KeySet, Keys, KeysResponse, Proof,
    RestoreRequest, SecretKey,
};
use cdk::secret::Secret;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::UnixTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::span::{self, Attributes, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Counts warnings. They are those of its thread.
pub(crate) struct Warnings(pub(crate) Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() <= Level::WARN {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A status line's end, and a body.
pub(crate) type Answer = (&'static str, String);

/// Ends when it is dropped.
pub(crate) struct FakeMint {
    pub(crate) url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for FakeMint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let end = at.saturating_add(4);
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
            if bytes.len() >= end.saturating_add(length) {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                return (path, bytes.split_off(end));
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return (String::new(), Vec::new());
        }
    }
}

impl FakeMint {
    /// `answer` gets a path and a body.
    pub(crate) async fn start(
        answer: impl Fn(&str, &[u8]) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (path, body) = request(&mut stream).await;
                let (status, body) = answer(&path, &body);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}");
                let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
            }
        });
        Self { url, server }
    }

    /// A wallet whose seed was just created.
    pub(crate) async fn wallet(&self, directory: &Path) -> MintWallet {
        wallet_at(&self.url, directory).await
    }
}

pub(crate) async fn wallet_at(url: &str, directory: &Path) -> MintWallet {
    let http = JsonClient::open().await.unwrap();
    let client = MintClient::new(cdk::mint_url::MintUrl::from_str(url).unwrap(), http);
    let store = WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap();
    let seed = Seed::load_or_create(&directory.join("mnemonic")).await.unwrap();
    MintWallet::new(client, MintUrl::parse(url).unwrap(), store, Arc::new(seed))
}

/// An active keyset of these keys, without a fee.
pub(crate) fn keyset_of(keys: Keys) -> KeySet {
    let unit = CurrencyUnit::Sat;
    KeySet {
        id: Id::v2_from_data(&keys, &unit, 0, None),
        unit,
        active: Some(true),
        keys,
        input_fee_ppk: 0,
        final_expiry: None,
    }
}

/// A keyset whose only denomination is 1, and what its mint answers.
pub(crate) struct OneKey {
    secret: SecretKey,
    pub(crate) keyset: KeySet,
}

impl OneKey {
    pub(crate) fn new() -> Self {
        let secret = SecretKey::generate();
        let keys = Keys::new(BTreeMap::from([(Amount::from(1), secret.public_key())]));
        Self { secret, keyset: keyset_of(keys) }
    }

    /// In a keyset that ends then.
    pub(crate) fn ending_at(end: UnixTime) -> Self {
        let mut one = Self::new();
        let keyset = &mut one.keyset;
        keyset.final_expiry = Some(end.0);
        keyset.id = Id::v2_from_data(&keyset.keys, &keyset.unit, 0, keyset.final_expiry);
        one
    }

    fn info(&self, input_fee_ppk: u64) -> Value {
        json!({
            "id": self.keyset.id, "unit": "sat", "active": true, "input_fee_ppk": input_fee_ppk,
            "final_expiry": self.keyset.final_expiry,
        })
    }

    pub(crate) fn keysets(&self, input_fee_ppk: u64) -> Answer {
        ("200 OK", json!({ "keysets": [self.info(input_fee_ppk)] }).to_string())
    }

    /// What a mint of both answers.
    pub(crate) fn keysets_with(&self, other: &Self) -> Answer {
        ("200 OK", json!({ "keysets": [self.info(0), other.info(0)] }).to_string())
    }

    pub(crate) fn keys(&self) -> Answer {
        let keys = KeysResponse { keysets: vec![self.keyset.clone()] };
        ("200 OK", serde_json::to_string(&keys).unwrap())
    }

    /// One that is signed, with its DLEQ proof.
    pub(crate) fn proof(&self) -> Proof {
        let (secret, amount) = (Secret::generate(), Amount::from(1));
        let (message, r) = blind_message(secret.as_bytes(), None).unwrap();
        let c = sign_message(&self.secret, &message).unwrap();
        let signature =
            BlindSignature::new(amount, c, self.keyset.id, &message, &self.secret).unwrap();
        construct_proofs(vec![signature], vec![r], vec![secret], &self.keyset.keys)
            .unwrap()
            .remove(0)
    }

    /// Signs whatever is asked for.
    pub(crate) fn signed(&self, body: &[u8]) -> Answer {
        let request: RestoreRequest = serde_json::from_slice(body).unwrap();
        let sign = |output: &cdk::nuts::BlindedMessage| {
            let signature = sign_message(&self.secret, &output.blinded_secret).unwrap();
            json!({ "amount": 1, "id": self.keyset.id, "C_": signature })
        };
        let signatures: Vec<_> = request.outputs.iter().map(sign).collect();
        let response = json!({ "outputs": request.outputs, "signatures": signatures });
        ("200 OK", response.to_string())
    }

    pub(crate) fn none_signed() -> Answer {
        ("200 OK", json!({ "outputs": [], "signatures": [] }).to_string())
    }

    pub(crate) fn unspent(body: &[u8]) -> Answer {
        let request: CheckStateRequest = serde_json::from_slice(body).unwrap();
        let state = |y| json!({ "Y": y, "state": "UNSPENT" });
        let states: Vec<_> = request.ys.iter().map(state).collect();
        ("200 OK", json!({ "states": states }).to_string())
    }
}
