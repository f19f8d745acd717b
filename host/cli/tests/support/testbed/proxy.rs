//! A proxy before the API server, that can refuse.

use super::admin_kubeconfig;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    refuses: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// Passes bytes on until it is to refuse.
pub struct Proxy(Arc<State>);

/// Where a kubeconfig finds the API server: `host:port`.
fn server(kubeconfig: &str) -> &str {
    let line = kubeconfig.lines().find_map(|line| line.split_once("https://"));
    line.unwrap().1.split(['"', '\'', ',', '}', ' ']).next().unwrap()
}

impl Proxy {
    /// Changes a kubeconfig, so that it leads here.
    pub fn before_the_api_server(kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let upstream = server(&text).to_owned();
        assert!(std::fs::read_to_string(admin_kubeconfig()).unwrap().contains(&upstream));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().to_string();
        std::fs::write(kubeconfig, text.replace(&upstream, &here)).unwrap();
        let upstream: SocketAddr = upstream.parse().unwrap();
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                // What cannot be passed on is closed.
                let _ = client.and_then(|client| of_thread.connect(client, upstream));
            }
        });
        Self(state)
    }

    /// Cuts what is open, and refuses what comes.
    pub fn refuse(&self) {
        self.0.refuses.store(true, Ordering::SeqCst);
        for stream in self.0.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn pass(&self) {
        self.0.refuses.store(false, Ordering::SeqCst);
    }
}

impl State {
    fn connect(&self, client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
        // Locked: nothing is opened while all is being cut.
        let mut open = self.open.lock().unwrap();
        if self.refuses.load(Ordering::SeqCst) {
            return client.shutdown(Shutdown::Both);
        }
        let server = TcpStream::connect(upstream)?;
        open.extend([client.try_clone()?, server.try_clone()?]);
        copy(client.try_clone()?, server.try_clone()?);
        copy(server, client);
        Ok(())
    }
}

/// One direction, until it ends.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
