//! A mint elsewhere, through the proxy that the environment names. The environment is that of another
//! process: this program again.

use crate::FEE_PPK;
use paygress_cashu::{CashuWallet, Seed, Settings, WalletStore};
use paygress_core::backend::wallet::{Payments, TokenReader};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::token::relabelled;
use paygress_sandbox::{TestMint, TestWallet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Names that lead nowhere, but through the proxy.
const ELSEWHERE: &str = "http://mint.invalid";
const DIRECT: &str = "http://direct.invalid";
/// The directory of the process below.
const DIRECTORY: &str = "PROXIED_WALLET";

/// Connects every tunnel to this server; sends what was requested.
async fn proxy(server: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await.unwrap());
                }
                sender.send(String::from_utf8(request).unwrap()).unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_mint_elsewhere_is_received_through_the_proxy_of_the_environment() {
    let mint = TestMint::start(FEE_PPK).await.unwrap();
    let customer = TestWallet::new(mint.url()).await.unwrap();
    customer.fill(100).await.unwrap();
    let token = relabelled(&customer.token(21).await.unwrap(), ELSEWHERE, "sat").unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), token).unwrap();
    let server = mint.url().strip_prefix("http://").unwrap().parse().unwrap();
    let (proxy, mut requests) = proxy(server).await;
    let mut wallet = Command::new(std::env::current_exe().unwrap());
    wallet
        .args(["--exact", "proxied::a_wallet_behind_a_proxy", "--ignored"])
        .env("HTTP_PROXY", format!("http://user:secret@{proxy}"))
        .env("NO_PROXY", "direct.invalid")
        .env(DIRECTORY, directory.path());
    let output = tokio::task::spawn_blocking(move || wallet.output().unwrap()).await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    let mut tunnels = 0;
    while let Ok(request) = requests.try_recv() {
        assert!(request.starts_with("CONNECT mint.invalid:80 HTTP/1.1\r\n"), "{request}");
        tunnels += 1;
    }
    println!("a token was received through {tunnels} tunnels");
    assert!(tunnels > 0);
}

/// Not a test: a wallet that receives one token.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test as a process"]
async fn a_wallet_behind_a_proxy() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let settings = Settings {
        mints: [ELSEWHERE, DIRECT].map(|url| MintUrl::parse(url).unwrap()).to_vec(),
        max_balance: None,
        p2pk_secret_key: None,
    };
    let seed = Seed::load_or_create(&directory.join("mnemonic")).await.unwrap();
    let store = WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap();
    let wallet = CashuWallet::open(store, seed, &settings).await.unwrap();
    let token = Secret::new(std::fs::read_to_string(directory.join("token")).unwrap());
    // What NO_PROXY names is looked for without the proxy, and is not there.
    let direct = Secret::new(relabelled(token.expose(), DIRECT, "sat").unwrap());
    let token_info = wallet.decode(&direct).await.unwrap();
    let refusal = wallet.verify(&direct, &token_info).await.unwrap_err();
    assert_eq!(refusal.code, ErrorType::MintNetworkError, "{refusal}");
    let token_info = wallet.decode(&token).await.unwrap();
    assert_eq!(wallet.verify(&token, &token_info).await.unwrap().net, Sat(20));
    let received = wallet.receive(&OrderId::random(), &token, &token_info).await;
    assert_eq!(received.map_err(|error| error.to_string()), Ok(Sat(20)));
}
