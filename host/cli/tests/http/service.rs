//! The service under test: a test's own, or one that tests share.

use crate::support::customer::{Buyer, Running, app_on};
use crate::support::fake::FakeCluster;
use crate::support::web::Web;
use paygress::sandbox::Sandbox;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use tokio::runtime::Runtime;

pub(crate) const OPERATOR: &str = "the operator's own long token";
/// The one web page that may call the shared service.
pub(crate) const ORIGIN: &str = "https://shop.example";

async fn start(settings: &[(&str, &str)], file: &str) -> (Sandbox, Running, Web) {
    let mut all = vec![("OPERATOR_TOKEN", OPERATOR), ("REQUESTS_PER_MINUTE", "100000")];
    all.extend_from_slice(settings);
    let sandbox = Sandbox::new(&all, file).await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    (sandbox, Running::start(app), web)
}

/// A service of the test's own, with these settings.
pub(crate) async fn opened(
    settings: &[(&str, &str)],
    file: &str,
) -> (Sandbox, Running, Web, Buyer) {
    let (sandbox, running, web) = start(settings, file).await;
    let buyer = Buyer::new(&sandbox).await;
    (sandbox, running, web, buyer)
}

/// A service whose cluster has room for so many pods, which are not real.
pub(crate) async fn with_room(room: u32) -> (Sandbox, Running, Web, Buyer) {
    with_cluster(&[], FakeCluster { room: Some(room), ..FakeCluster::default() }).await
}

/// A service with these settings, whose pods are not real.
pub(crate) async fn with_cluster(
    settings: &[(&str, &str)],
    cluster: FakeCluster,
) -> (Sandbox, Running, Web, Buyer) {
    let sandbox = Sandbox::new(settings, "").await.unwrap();
    let app = app_on(&sandbox, cluster).await;
    let web = Web::new(app.http_address().unwrap());
    let (running, buyer) = (Running::start(app), Buyer::new(&sandbox).await);
    (sandbox, running, web, buyer)
}

/// A service that tests share: starting one takes seconds.
pub(crate) struct Shared {
    pub(crate) sandbox: Sandbox,
    web: Web,
    _running: Running,
    _runtime: Runtime,
    _sweeper: Child,
}

impl Shared {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (sandbox, running, web) = runtime.block_on(start(&[("CORS_ORIGINS", ORIGIN)], ""));
        let sweeper = sweeper(sandbox.directory.path());
        Self { sandbox, web, _running: running, _runtime: runtime, _sweeper: sweeper }
    }
}

/// Removes the directory once this process has ended: what is static is not dropped.
fn sweeper(directory: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "cat; rm -rf -- \"$0\""]).arg(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The shared service, for what concerns its caller's own pods and tokens only.
pub(crate) async fn shared() -> (&'static Shared, Web, Buyer) {
    static SHARED: LazyLock<Shared> = LazyLock::new(Shared::start);
    let shared: &Shared = tokio::task::spawn_blocking(|| &*SHARED).await.unwrap();
    // The connections of a client end with the test's runtime.
    let (web, buyer) = (Web::new(shared.web.address), Buyer::new(&shared.sandbox).await);
    (shared, web, buyer)
}
