//! The HTTP ports of pods, each at a host of its own: for their customers alone, or for anybody.

use crate::service::{OPERATOR, ORIGIN, opened};
use crate::support::customer::{Buyer, Running, TIMEOUT};
use crate::support::web::{Answer, Web};
use crate::text;
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use paygress::sandbox::Sandbox;
use paygress_core::backend::store::{MessageLog, USED_LOGIN};
use paygress_core::model::ids::MessageId;
use paygress_core::model::units::UnixTime;
use paygress_store::SqlStore;
use paygress_store::db::{Database, DatabaseError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const DOMAIN: (&str, &str) = ("APPS_DOMAIN", "apps.example");
/// What a browser sends with a link that is opened.
const OPENED: (&str, &str) = ("sec-fetch-mode", "navigate");

/// What a customer runs in their pod: pods of these tests share the machine's network.
struct PodProgram {
    port: u16,
    /// Lets `/stream` go on.
    go_on: watch::Sender<bool>,
}

impl PodProgram {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (go_on, goes_on) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, goes_on.clone()));
            }
        });
        Self { port, go_on }
    }
}

/// One connection: `/ws` sends messages back, `/stream` sends half of its answer before it may go on,
/// `/odd` is answered with a status of its own and with what proxies obey, and any other path with the
/// request as it came.
async fn serve(mut stream: TcpStream, mut goes_on: watch::Receiver<bool>) {
    let mut start = [0_u8; 8];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return,
            Ok(read) if read == start.len() => break,
            Ok(_) => tokio::task::yield_now().await,
        }
    }
    if start.starts_with(b"GET /ws ") {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
        return;
    }
    let request = read_request(&mut stream).await;
    if start == *b"GET /odd" {
        let head = b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\nX-Accel-Redirect: /members/\r\nClear-Site-Data: \"cookies\"\r\n\r\n";
        stream.write_all(head).await.unwrap();
        return;
    }
    if start.starts_with(b"GET /str") {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
        stream.write_all(head).await.unwrap();
        let _ = goes_on.wait_for(|go_on| *go_on).await;
        let _ = stream.write_all(b"4\r\ndone\r\n0\r\n\r\n").await;
        return;
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: app=1\r\nSet-Cookie: all=1; Domain=apps.example\r\nConnection: close\r\n\r\n",
        request.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// The head and the body of a request.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return String::from_utf8(request).unwrap();
            }
        }
        assert!(stream.read_buf(&mut request).await.unwrap() > 0, "half a request: {text}");
    }
}

/// A pod with an HTTP port, and who has bought it.
struct Bought {
    web: Web,
    answer: Value,
    host: String,
}

impl Bought {
    async fn new(web: &Web, buyer: &Buyer, port: u16, is_public: Option<bool>) -> Self {
        let token = buyer.token(20).await;
        let order = json!({"cashu_token": token, "http_port": port, "http_public": is_public});
        let answer = web.spawn(order).await.good();
        let host = format!("{}.apps.example", text(&answer, "pod_name"));
        assert_eq!(answer["http_url"], format!("https://{host}"));
        assert!(answer.get("http_login_url").is_none(), "it would be old when it is read");
        Self { web: web.clone(), answer, host }
    }

    fn pod(&self) -> &str {
        text(&self.answer, "pod_name")
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = ("host", &*self.host);
        let headers: Vec<_> = headers.iter().copied().chain([host]).collect();
        self.web.ask(method, path, &headers, body).await
    }

    async fn status(&self) -> Value {
        let path = format!("/pods/{}", self.pod());
        self.web.get(&path, text(&self.answer, "bearer_token")).await.good()
    }

    /// The path of a new link that logs in.
    async fn login_path(&self) -> String {
        let status = self.status().await;
        let link = text(&status, "http_login_url");
        link.strip_prefix(&format!("https://{}", self.host)).unwrap().to_owned()
    }

    /// The cookie of a browser that has opened the link.
    async fn log_in(&self) -> String {
        let answer = self.ask("GET", &self.login_path().await, &[OPENED], "").await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        assert_eq!(answer.headers["location"], "/");
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn stop(&self) {
        let path = format!("/pods/{}", self.pod());
        let bearer = format!("Bearer {}", text(&self.answer, "bearer_token"));
        self.web.ask("DELETE", &path, &[("authorization", &bearer)], "").await.good();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_its_customers_alone_once_a_browser_has_opened_their_link() {
    let (_sandbox, _running, web, buyer) = opened(&[DOMAIN], "").await;
    let program = PodProgram::start().await;
    let mine = Bought::new(&web, &buyer, program.port, None).await;
    let other = Bought::new(&web, &buyer, program.port, Some(false)).await;
    mine.ask("GET", "/", &[], "").await.is(403, "not_owner");
    let bearer = format!("Bearer {}", text(&mine.answer, "bearer_token"));
    mine.ask("GET", "/", &[("authorization", &bearer)], "").await.is(403, "not_owner");
    let link = mine.login_path().await;
    other.ask("GET", &link, &[OPENED], "").await.is(403, "not_owner");
    mine.ask("HEAD", &link, &[], "").await;
    let logged_in = mine.ask("GET", &link, &[OPENED], "").await;
    assert_eq!(logged_in.status, 303, "{}", logged_in.body);
    mine.ask("GET", &link, &[OPENED], "").await.is(403, "not_owner");

    let cookie = mine.log_in().await;
    let with_more = format!("theme=dark; {cookie}");
    let headers = [
        ("cookie", &*with_more),
        ("authorization", &*bearer),
        ("x-forwarded-for", "203.0.113.9"),
        ("connection", "x-private"),
        ("x-private", "1"),
    ];
    let answer = mine.ask("POST", "/a?b=1", &headers, "what is sent").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let request = answer.body.to_ascii_lowercase();
    assert!(request.starts_with("post /a?b=1 http/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nwhat is sent"), "{request}");
    for line in [
        format!("host: {}", mine.host),
        format!("x-forwarded-host: {}", mine.host),
        "x-forwarded-proto: https".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        "cookie: theme=dark".to_owned(),
    ] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} is missing: {request}");
    }
    for secret in ["__host-paygress", "authorization", "203.0.113.9", "x-private"] {
        assert!(!request.contains(secret), "the pod has got {secret}: {request}");
    }
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["app=1"], "the other is for all pods");
    assert_eq!(answer.headers["cache-control"], "private");
    // Neither another pod's customer nor another pod's page uses the cookie.
    other.ask("GET", "/", &[("cookie", &cookie)], "").await.is(403, "not_owner");
    let origin = format!("https://{}", other.host);
    let headers = [("cookie", &*cookie), ("origin", &origin)];
    mine.ask("POST", "/", &headers, "").await.is(403, "not_owner");
}

/// Programs preview links; no button is pressed there.
#[tokio::test(flavor = "multi_thread")]
async fn a_preview_of_a_link_does_not_use_it() {
    let (_sandbox, _running, web, buyer) = opened(&[DOMAIN], "").await;
    let program = PodProgram::start().await;
    let mine = Bought::new(&web, &buyer, program.port, None).await;
    let link = mine.login_path().await;
    for headers in [vec![], vec![("sec-fetch-mode", "no-cors")]] {
        let preview = mine.ask("GET", &link, &headers, "").await;
        assert_eq!(preview.status, 200, "{}", preview.body);
        assert!(preview.body.contains("<form method=\"post\">"), "{}", preview.body);
        assert!(!preview.headers.contains_key("set-cookie"));
    }
    let logged_in = mine.ask("POST", &link, &[("origin", "null")], "").await;
    assert_eq!(logged_in.status, 303, "{}", logged_in.body);
    assert!(logged_in.headers.contains_key("set-cookie"));
    mine.ask("POST", &link, &[], "").await.is(403, "not_owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_were_used_long_ago_are_forgotten() {
    let sandbox = Sandbox::new(&[DOMAIN], "").await.unwrap();
    let path = &sandbox.config.ledger;
    let ledger = SqlStore::sqlite(path).await.unwrap();
    for (id, at) in [("old", UnixTime(1)), ("new", UnixTime::now())] {
        let id = MessageId::parse(format!("{USED_LOGIN}{id}")).unwrap();
        ledger.complete_message(&id, at).await.unwrap();
    }
    drop(ledger);
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let (_running, buyer) = (Running::start(app), Buyer::new(&sandbox).await);
    let program = PodProgram::start().await;
    Bought::new(&web, &buyer, program.port, None).await.log_in().await;
    let ledger = Database::sqlite_read_only(path, SqlStore::SCHEMA).await.unwrap();
    let left = ledger.transact(|transaction| {
        let of_test = "SELECT id FROM seen WHERE id IN ('app-login:old', 'app-login:new')";
        let rows = transaction.query(of_test, &[])?;
        rows.into_iter().map(|mut row| row.text()).collect::<Result<Vec<_>, DatabaseError>>()
    });
    assert_eq!(left.await.unwrap(), ["app-login:new"]);
}

/// Whoever shares an address with a customer, and has paid nothing, does not use up what the customer has.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_the_same_address_does_not_slow_a_customer() {
    let settings = [DOMAIN, ("REQUESTS_PER_MINUTE", "30")];
    let (_sandbox, _running, web, buyer) = opened(&settings, "").await;
    let program = PodProgram::start().await;
    let mine = Bought::new(&web, &buyer, program.port, None).await;
    let (cookie, link) = (mine.log_in().await, mine.login_path().await);
    let mut refused = 0;
    while refused == 0 {
        let answer = mine.ask("GET", "/", &[("cookie", "__Host-paygress-app=1.a.b")], "").await;
        refused += u32::from(answer.status == 429);
    }
    let answer = mine.ask("GET", "/", &[("cookie", &cookie)], "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let logged_in = mine.ask("GET", &link, &[OPENED], "").await;
    assert_eq!(logged_in.status, 303, "{}", logged_in.body);
}

/// Browsers send up to a hundred requests at once by a proxy with HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_many_files_is_whole_behind_a_proxy() {
    /// Of one address at the same time.
    const AT_ONCE: usize = 22;
    let settings = [DOMAIN, ("TRUSTED_PROXIES", "127.0.0.1")];
    let (_sandbox, _running, web, buyer) = opened(&settings, "").await;
    let program = PodProgram::start().await;
    let mine = Bought::new(&web, &buyer, program.port, None).await;
    let cookie = mine.log_in().await;
    let of_page = [("host", &*mine.host), ("cookie", &cookie), ("x-forwarded-for", "203.0.113.9")];
    let mut begun = Vec::new();
    for _ in 0..AT_ONCE {
        let mut stream = web.open("GET", "/stream", &of_page, "").await;
        assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        begun.push(stream);
    }
    let ask = || web.ask("GET", "/stream", &of_page, "");
    let others = futures::future::join_all((AT_ONCE..60).map(|_| ask()));
    let elsewhere = async {
        let headers = [("cookie", &*cookie), ("x-forwarded-for", "198.51.100.7")];
        let answer = mine.ask("GET", "/", &headers, "").await;
        program.go_on.send_replace(true);
        answer.status
    };
    let (others, elsewhere) = tokio::join!(others, elsewhere);
    assert_eq!(elsewhere, 200);
    for answer in others {
        assert_eq!((answer.status, &*answer.body), (200, "begundone"));
    }
    for stream in begun {
        assert_eq!(stream.collect().await.unwrap().to_bytes(), "done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_port_streams_and_carries_websockets_until_the_end_of_the_lease() {
    let (_sandbox, _running, web, buyer) = opened(&[DOMAIN], "").await;
    let program = PodProgram::start().await;
    let public = Bought::new(&web, &buyer, program.port, Some(true)).await;
    assert!(public.status().await.get("http_login_url").is_none());
    let of_host = [("host", &*public.host)];
    let mut stream = web.open("GET", "/stream", &of_host, "").await;
    let piece = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&piece[..], b"begun", "it comes before the rest is made");
    program.go_on.send_replace(true);
    assert_eq!(stream.collect().await.unwrap().to_bytes(), "done");

    program.go_on.send_replace(false);
    let mut cut = web.open("GET", "/stream", &of_host, "").await;
    cut.frame().await.unwrap().unwrap();
    let request = format!("ws://{}/ws", public.host).into_client_request().unwrap();
    let socket = TcpStream::connect(web.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, socket).await.unwrap();
    socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "hello");

    public.stop().await;
    let over = async {
        while let Some(Ok(_)) = socket.next().await {}
        assert!(cut.frame().await.unwrap().is_err(), "half an answer is not a whole one");
    };
    tokio::time::timeout(TIMEOUT, over).await.expect("the end of the lease is theirs");
    let ended = public.ask("GET", "/", &[], "").await;
    let unknown = [("host", "ssh-pod-aaaaaaaaaa.apps.example")];
    let unknown = web.ask("GET", "/", &unknown, "").await;
    assert_eq!(ended.is(404, "not_found"), unknown.is(404, "not_found"));
    assert!(public.status().await.get("http_url").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_commands_no_proxy_and_makes_no_series() {
    let (_sandbox, _running, web, buyer) = opened(&[DOMAIN], "").await;
    let program = PodProgram::start().await;
    let public = Bought::new(&web, &buyer, program.port, Some(true)).await;
    let answer = public.ask("GET", "/odd", &[], "").await;
    assert_eq!(answer.status, 299, "{}", answer.body);
    for name in ["x-accel-redirect", "clear-site-data"] {
        assert!(!answer.headers.contains_key(name), "{:?}", answer.headers);
    }
    let metrics = web.get("/metrics", OPERATOR).await;
    let of_apps: Vec<&str> =
        metrics.body.lines().filter(|line| line.contains("route=\"app\"")).collect();
    assert!(of_apps.iter().any(|line| line.contains("status=\"200\"")), "{of_apps:?}");
    assert!(!of_apps.iter().any(|line| line.contains("status=\"299\"")), "{of_apps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_reaches_what_is_another_hosts() {
    let settings = [DOMAIN, ("CORS_ORIGINS", ORIGIN)];
    let (_sandbox, _running, web, buyer) = opened(&settings, "").await;
    let program = PodProgram::start().await;
    let public = Bought::new(&web, &buyer, program.port, Some(true)).await;
    // The paths of the service are the pod's there, with no word of the service's.
    let operator = format!("Bearer {OPERATOR}");
    for path in ["/offers", "/", "/metrics", "/pods", "/healthz"] {
        let headers = [("origin", ORIGIN), ("authorization", &*operator)];
        let answer = public.ask("GET", path, &headers, "").await;
        assert!(answer.body.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{}", answer.body);
        assert!(!answer.body.to_ascii_lowercase().contains("authorization"), "{}", answer.body);
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    public.ask("GET", "/.paygress/other", &[], "").await.is(404, "not_found");
    for host in ["apps.example", "a.apps.example:80", "x.y.apps.example."] {
        web.ask("GET", "/offers", &[("host", host)], "").await.is(404, "not_found");
    }
    web.ask("GET", "/offers", &[("host", "xapps.example")], "").await.good();
    let host = &public.host;
    for (head, status) in [
        (format!("GET / HTTP/1.1\r\nHost: pods.example\r\nHost: {host}\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: pods.example\r\n"), "400"),
        (format!("GET http://{host}/ HTTP/1.1\r\nHost: pods.example\r\n"), "400"),
        (format!("GET http://pods.example/offers HTTP/1.1\r\nHost: {host}\r\n"), "400"),
        (format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n"), "200"),
        (format!("CONNECT {host}:22 HTTP/1.1\r\nHost: {host}:22\r\n"), "405"),
    ] {
        let mut stream = TcpStream::connect(web.address).await.unwrap();
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_refused_that_is_none_or_ssh_or_not_served_and_reported_if_it_is_silent() {
    let (_sandbox, _running, web, buyer) = opened(&[DOMAIN], "").await;
    let token = buyer.token(20).await;
    for (fields, expected) in [
        (json!({"http_port": 0}), "from 1 to 65535"),
        (json!({"http_port": 65_536}), "from 1 to 65535"),
        (json!({"http_port": "web"}), "from 1 to 65535"),
        (json!({"http_port": 2_222}), "SSH"),
        (json!({"http_public": true}), "http_port"),
    ] {
        let mut order = json!({"cashu_token": token});
        order.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let refused = web.spawn(order).await.is(400, "invalid_request");
        assert!(text(&refused, "detail").contains(expected), "{refused}");
    }
    // It never listens.
    let unused = TcpSocket::new_v4().unwrap();
    unused.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = unused.local_addr().unwrap().port();
    let silent = Bought::new(&web, &buyer, port, Some(true)).await;
    let problem = silent.ask("GET", "/", &[], "").await.is(503, "backend_error");
    assert!(text(&problem, "detail").contains(&port.to_string()), "{problem}");

    assert_eq!(web.ask("GET", "/offers", &[], "").await.good()["http_ports"], true);

    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    assert!(web.ask("GET", "/offers", &[], "").await.good().get("http_ports").is_none());
    let order = json!({"cashu_token": buyer.token(20).await, "http_port": 8_080});
    let refused = web.spawn(order).await.is(400, "invalid_request");
    assert!(text(&refused, "detail").contains("ssh -L"), "{refused}");
    let by_nostr = json!({"cashu_token": buyer.token(20).await, "http_port": 8_080});
    assert_eq!(buyer.ask(by_nostr).await["error_type"], "invalid_request");
}

/// Whoever has bought over Nostr gets the link by the status, over Nostr.
#[tokio::test(flavor = "multi_thread")]
async fn a_customer_of_nostr_logs_a_browser_in() {
    let (_sandbox, _running, web, buyer) = opened(&[DOMAIN], "").await;
    let program = PodProgram::start().await;
    let order = json!({"cashu_token": buyer.token(20).await, "http_port": program.port});
    let answer = buyer.ask(order).await;
    let (pod, url) = (text(&answer, "pod_name"), text(&answer, "http_url"));
    let status = buyer.ask(json!({"type": "status", "pod_name": pod})).await;
    let path = text(&status, "http_login_url").strip_prefix(url).unwrap();
    let host = url.strip_prefix("https://").unwrap();
    let headers = [("host", host), OPENED];
    let open = web.ask("GET", path, &headers, "");
    let opened = tokio::time::timeout(TIMEOUT, open).await.unwrap();
    assert_eq!(opened.status, 303, "{}", opened.body);
}
