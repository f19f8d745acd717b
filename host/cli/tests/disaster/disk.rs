//! The disk of the ledger or of the wallet is full.

use crate::account::{assert_audited, count};
use crate::customer::{Customer, pod_of};
use crate::pods::Trouble;
use crate::service::{Installation, Service};
use crate::support::customer::until;
use paygress_core::limits;
use paygress_core::model::order::State;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::Command;

/// Beyond the reserve: what the service writes in this test.
const ROOM: u64 = 32 << 20;

/// A file system of its own, in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None, where this needs rights that the test does not have.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={},mode=700", limits::DISK_RESERVE + ROOM);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        println!("NOT RUN: a full disk, since this user may not mount a file system");
        None
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Takes so much of it, or all that there is.
    fn fill(&self, bytes: u64) {
        let mut file = File::create(self.file("ballast")).unwrap();
        let written =
            io::copy(&mut io::repeat(0).take(bytes), &mut file).and_then(|_| file.flush());
        if let Err(error) = written {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.file("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

/// Orders are refused before they are paid, and served when there is room.
async fn refused_and_served(service: &Service, disk: &SmallDisk, customer: &Customer) {
    pod_of(&customer.buy(5).await);
    for bytes in [ROOM, u64::MAX] {
        disk.fill(bytes);
        let token = customer.token(5).await;
        let refused = customer.buy_over_http(service, &token).await;
        let refused = refused.is(503, "resource_unavailable");
        assert!(refused["detail"].as_str().unwrap().contains("disk is nearly full"), "{refused}");
        customer.assert_untouched(&token).await;
        let reasons = service.wait_for_readyz(503).await;
        assert!(reasons.contains("a disk is nearly full"), "{reasons}");
        disk.make_room();
        service.wait_for_readyz(200).await;
        pod_of(&customer.buy(5).await);
    }
}

/// What is paid when the disk gets full has its pod when there is room, and what is sent meanwhile
/// is answered then.
async fn paid_and_served(installation: &Installation, disk: &SmallDisk, customer: &Customer) {
    let paid = customer.pay_and_wait(installation, 5).await;
    disk.fill(u64::MAX);
    installation.pods.end(Trouble::Starting);
    let another = Customer::new(installation).await;
    let sent = another.buy_in_background(5);
    // It may be refused before there is room; it is not forgotten.
    until("a message is not on its way", async || {
        (another.buyer.wallet.balance().await.unwrap() < 1_000).then_some(())
    })
    .await;
    disk.make_room();
    pod_of(&paid.await.unwrap());
    let answer = sent.await.unwrap();
    assert!(
        answer["pod_name"].is_string() || answer["error_type"] == "resource_unavailable",
        "{answer}"
    );
}

async fn full(variable: &str, name: &str) {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.file(name).to_string_lossy().into_owned();
    let installation = Installation::new(&[(variable, &path)], "").await;
    let service = installation.start().await;
    let customer = Customer::new(&installation).await;
    refused_and_served(&service, &disk, &customer).await;
    customer.account(&installation).await;
    paid_and_served(&installation, &disk, &customer).await;
    assert_eq!(count(&installation, State::Provisioning).await, 0);
    assert_audited(&installation).await;
    println!("{variable} on a full disk: 2 orders refused before they were paid, 0 lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_ledger() {
    full("LEDGER_PATH", "ledger.sqlite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_wallet() {
    full("CASHU_DB_PATH", "wallet.sqlite").await;
}
