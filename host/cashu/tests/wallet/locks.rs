//! Tokens with spending conditions, and with parts that mints refuse, at a real mint.

use crate::{TestEnv, assert_balanced};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use cdk::nuts::nut10::Conditions;
use cdk::nuts::{PublicKey, SecretKey, SigFlag, SpendingConditions};
use cdk::wallet::SendOptions;
use paygress_cashu::{CashuWallet, Settings};
use paygress_core::backend::wallet::{Payments, TokenReader};
use paygress_core::model::ids::OrderId;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_sandbox::token::as_v3;
use serde_json::{Value, json};

fn service_key() -> SecretKey {
    SecretKey::from_hex("7".repeat(64)).unwrap()
}

async fn wallet(env: &TestEnv) -> CashuWallet {
    let key = Some(Secret::new(service_key().to_secret_hex()));
    env.wallet_at("locked.sqlite", Settings { p2pk_secret_key: key, ..env.settings() }).await
}

async fn receive(wallet: &CashuWallet, token: &Secret) -> Result<(Sat, Sat), String> {
    let token_info = wallet.decode(token).await.map_err(|refusal| refusal.to_string())?;
    let payment = wallet.verify(token, &token_info).await.map_err(|refusal| refusal.to_string())?;
    let received = wallet.receive(&OrderId::random(), token, &token_info).await;
    Ok((payment.net, received.map_err(|error| error.to_string())?))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lock_our_signature_opens_is_received_at_the_mint() {
    let env = TestEnv::new().await;
    let wallet = wallet(&env).await;
    let (ours, other) = (service_key().public_key(), SecretKey::generate().public_key());
    let now = UnixTime::now();
    let (past, later) = (now.minus(Seconds(60)).0, now.after(Seconds(86_400)).0);
    let none = Conditions::default;
    let refund = || Some(vec![other]);
    let all = || Conditions { sig_flag: SigFlag::SigAll, ..none() };
    let lock = |key: PublicKey, conditions: Conditions| {
        Some(SpendingConditions::P2PKConditions { data: key, conditions: Some(conditions) })
    };
    let blinded = |conditions| SendOptions { conditions, use_p2bk: true, ..SendOptions::default() };
    let plain = |conditions| SendOptions { conditions, ..SendOptions::default() };
    for (name, options) in [
        ("a lock", plain(lock(ours, none()))),
        ("a locktime", plain(lock(ours, Conditions { locktime: Some(later), ..none() }))),
        (
            "refund keys",
            plain(lock(
                ours,
                Conditions { locktime: Some(later), refund_keys: refund(), ..none() },
            )),
        ),
        ("a lock that is over", plain(lock(ours, Conditions { locktime: Some(past), ..none() }))),
        (
            "another key's lock that is over",
            plain(lock(other, Conditions { locktime: Some(past), ..none() })),
        ),
        ("SIG_ALL", plain(lock(ours, all()))),
        ("SIG_ALL, later", plain(lock(ours, Conditions { locktime: Some(later), ..all() }))),
        ("blinded", blinded(lock(ours, none()))),
        ("blinded, later", blinded(lock(ours, Conditions { locktime: Some(later), ..none() }))),
        ("blinded, SIG_ALL", blinded(lock(ours, all()))),
    ] {
        let token = Secret::new(env.customer.token_with(21, options).await.unwrap());
        let (promised, received) =
            receive(&wallet, &token).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((promised, received), (Sat(20), Sat(20)), "{name}");
    }
    let blinded_to_other = env.customer.token_with(21, blinded(lock(other, none()))).await.unwrap();
    let refusal = receive(&wallet, &Secret::new(blinded_to_other)).await.unwrap_err();
    assert!(refusal.contains("to another key"), "{refusal}");
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_under_one_signature_is_found_when_its_answer_is_lost() {
    let env = TestEnv::new().await;
    let wallet = wallet(&env).await;
    let conditions = Conditions { sig_flag: SigFlag::SigAll, ..Conditions::default() };
    let conditions = Some(SpendingConditions::P2PKConditions {
        data: service_key().public_key(),
        conditions: Some(conditions),
    });
    let options = SendOptions { conditions, use_p2bk: true, ..SendOptions::default() };
    let token = Secret::new(env.customer.token_with(21, options).await.unwrap());
    let (order, token_info) = (OrderId::random(), wallet.decode(&token).await.unwrap());
    env.proxy.plan("v1/swap", paygress_sandbox::NetworkFault::LostOnTheWay, 0, 2);
    let _ = wallet.receive(&order, &token, &token_info).await;
    env.proxy.clear();
    // The request is repeated, signed again by a process that has just started.
    drop(wallet);
    let wallet = self::wallet(&env).await;
    let resolution = crate::resolved(&wallet, &order, &token).await;
    assert_eq!(crate::received(&resolution), Some(Sat(20)), "{resolution:?}");
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_cannot_be_read_cost_a_token_nothing() {
    let env = TestEnv::new().await;
    let wallet = wallet(&env).await;
    for (name, part) in
        [("witness", json!("")), ("witness", json!("{\"signatures\":[]}")), ("r", Value::Null)]
    {
        let text = as_v3(env.token(21).await.expose()).unwrap();
        let bytes = URL_SAFE.decode(text.strip_prefix("cashuA").unwrap()).unwrap();
        let mut token: Value = serde_json::from_slice(&bytes).unwrap();
        for proof in token["token"][0]["proofs"].as_array_mut().unwrap() {
            match name {
                "r" => drop(proof["dleq"].as_object_mut().unwrap().remove("r").unwrap()),
                name => proof[name] = part.clone(),
            }
        }
        let token = Secret::new(format!("cashuA{}", URL_SAFE.encode(token.to_string())));
        let received = receive(&wallet, &token).await;
        assert_eq!(received, Ok((Sat(20), Sat(20))), "{name}");
    }
    assert_balanced(&wallet).await;
}
