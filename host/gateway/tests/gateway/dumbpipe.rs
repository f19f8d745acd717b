//! OpenSSH's client with dumbpipe as its `ProxyCommand`, without a program of ours. By hand: it is
//! not among the dependencies, and calls its makers' servers where it reaches them.

use crate::openssh::{Customer, output, text};
use crate::process::{GATEWAY, Process, Settings};
use crate::support::alice;

/// Its path.
const PROGRAM: &str = "DUMBPIPE";
const BYTES: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs dumbpipe, by hand: docs/testing.md"]
async fn dumbpipe_leads_to_the_pod() {
    let program = std::env::var(PROGRAM).expect("DUMBPIPE has to be the path of dumbpipe");
    let customer = Customer::new();
    let pod_key = customer.own.to_openssh().unwrap();
    let settings = Settings { pod_key: &pod_key, udp: "127.0.0.1:0", ..Settings::default() };
    let mut gateway = Process::start(GATEWAY, &settings);
    let (host_key, ticket) = (gateway.value("host-key"), gateway.value("ticket"));
    let host = alice().to_string();
    customer.configure(&[(host.clone(), host_key.as_str())], ["publickey"; 2], "own");

    let mut ssh = customer.client("ssh");
    // It prints a key that it makes itself.
    ssh.env("IROH_SECRET", "07".repeat(32)).arg("-o").arg(format!(
        "ProxyCommand={program} connect --custom-alpn utf8:paygress/ssh/1/{host} {ticket}"
    ));
    ssh.arg(format!("alice@{host}")).arg(format!("head -c {BYTES} /dev/zero; exit 3"));
    let done = output(ssh).await;
    let errors = text(&done.stderr);
    assert_eq!((done.stdout.len(), done.status.code()), (BYTES, Some(3)), "{errors}");
}
