//! The disk is lost. What is left is yesterday's copy, made by the commands of
//! `docs/operating.md`, and put back by them.

use crate::account::{count, documented, held, run};
use crate::customer::{Customer, pod_of, wait_for_orders};
use crate::pods::Trouble;
use crate::service::Installation;
use crate::support::command::printed;
use paygress_core::model::order::State;
use std::path::Path;

const SECTION: &str = "Back up and restore";

/// All that the service has stored is gone, its mnemonic included.
fn lose_the_disk(directory: &Path) {
    for name in ["ledger.sqlite", "wallet.sqlite"] {
        for file in [name.to_owned(), format!("{name}-wal"), format!("{name}-shm")] {
            let _ = std::fs::remove_file(directory.join(file));
        }
        assert!(!directory.join(name).exists());
    }
    std::fs::remove_file(directory.join("wallet.mnemonic")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn yesterdays_copy_brings_back_every_sat() {
    let installation = Installation::new(&[], "").await;
    let directory = installation.sandbox.directory.path().to_owned();
    // Where the documents have the files.
    std::os::unix::fs::symlink(".", directory.join("data")).unwrap();
    let service = installation.start().await;
    let customer = Customer::new(&installation).await;
    pod_of(&customer.buy(31).await);
    let in_the_copy = customer.pay_and_wait(&installation, 11).await;
    run(&installation, &directory, &documented(SECTION, 0)).await;
    let copied = held(&installation).await;

    // A day passes: more is sold, and the operator sends money away.
    installation.pods.end(Trouble::Starting);
    pod_of(&in_the_copy.await.unwrap());
    pod_of(&customer.buy(8).await);
    let sent = printed(&installation.sandbox, &["wallet", "send", "20"]).await;
    customer.buyer.wallet.receive(sent.trim()).await.unwrap();
    let lost = customer.pay_and_wait(&installation, 11).await;
    service.kill_9().await;
    lost.abort();
    let before = held(&installation).await;
    lose_the_disk(&directory);

    let restored = run(&installation, &directory, &documented(SECTION, 1)).await;
    assert!(restored.contains(" sat restored"), "{restored}");
    let after = customer.account(&installation).await;
    assert_eq!(after, before, "the wallet holds what it held: {restored}");

    // The order of the copy goes on. What came later is the service's money, without an order.
    installation.pods.end(Trouble::Starting);
    let _service = installation.start().await;
    wait_for_orders(&installation, State::Active, 2).await;
    assert_eq!(count(&installation, State::Provisioning).await, 0);
    pod_of(&customer.buy(5).await);
    customer.account(&installation).await;
    println!(
        "a copy with {copied} sat, of a wallet that held {before} when it was lost: {after} sat are back"
    );
}
