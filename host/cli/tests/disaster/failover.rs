//! The primary of a Postgres is killed, and its standby takes its place.

use crate::load::Load;
use crate::service::Installation;
use crate::upgrade::assert_none_lost;
use paygress_store::db::testing::Server;
use serde_json::Value;
use std::time::Instant;
use tokio::sync::watch;

const MNEMONIC: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// Orders before and after it.
const ORDERS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_the_place_of_a_killed_primary() {
    let mut primary = Server::start().unwrap();
    let standby = primary.start_standby().unwrap();
    let url = primary.url_with(&standby);
    let settings = [
        ("DATABASE_URL", url.expose()),
        ("WALLET_MNEMONIC", MNEMONIC),
        ("REQUESTS_PER_MINUTE", "100000"),
    ];
    let installation = Installation::new(&settings, "").await;
    let replicas = [installation.start().await, installation.start().await];
    let webs = replicas.iter().map(|replica| replica.web.clone()).collect();
    let (_served_by, serving) = watch::channel(webs);
    let mut load = Load::start(&installation, serving).await;
    load.sell(ORDERS).await;

    let begun = Instant::now();
    primary.kill().unwrap();
    replicas[0].wait_for_readyz(503).await;
    standby.promote().unwrap();
    replicas[0].wait_for_readyz(200).await;
    let away = begun.elapsed();
    load.sell(ORDERS).await;

    let bought = load.end().await;
    let errors: Vec<&String> = bought.iter().flat_map(|bought| &bought.errors).collect();
    for error in &errors {
        let code = serde_json::from_str::<Value>(error).unwrap()["error_type"].clone();
        let code = code.as_str().unwrap_or_default();
        assert!(
            ["internal_error", "token_pending", "mint_network_error"].contains(&code),
            "{error}"
        );
    }
    assert_none_lost(&installation, &bought).await;
    println!(
        "ready again {:.1} s after the primary was killed; {} requests were refused meanwhile, and repeated; 0 orders lost",
        away.as_secs_f64(),
        errors.len()
    );
}
