//! What editors do to a host: a script on the standard input of `sh` installs and starts a server,
//! which is reached by a tunnel to its socket, and by SOCKS. The real ones cannot be fetched here.

use crate::forwarding::{through_socks, through_unix};
use crate::server::{Server, are_there, free_port};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// Connections that are open all the time, and those that move much meanwhile.
const LONG_LIVED: usize = 100;
const BUSY: usize = 10;

/// The script: a second window finds the server of the first.
fn bootstrap() -> String {
    format!(
        "mkdir -p ~/.editor; cd ~/.editor\ncat > server.py << 'PROGRAM'\n{}PROGRAM\n\
         if [ ! -e log ]; then nohup python3 server.py socket > log 2>&1 < /dev/null & fi\n\
         until grep -q listening log; do sleep 0.05; done\ncat log\nexec cat > /dev/null\n",
        include_str!("editor-server.py")
    )
}

/// A window of an editor: its connection, and what it has started.
struct Editor {
    client: Child,
    /// The script's input stays open as long as the window.
    input: ChildStdin,
    /// The local ends of the tunnels.
    socket: PathBuf,
    socks: u16,
    /// Of the editor's server.
    port: u16,
    process: String,
}

impl Editor {
    fn open(server: &Server, socket: PathBuf) -> Self {
        let socks = free_port();
        let remote = server.home.path().join(".editor/socket");
        let mut command = server.client("ssh", "-p");
        command.args(["-T", "-D", &format!("127.0.0.1:{socks}")]);
        command.arg("-L").arg(format!("{}:{}", socket.display(), remote.display()));
        command.args(["alice@127.0.0.1", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(bootstrap().as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let rest = line.trim().strip_prefix("listening on ").expect("the server's line");
        let (port, process) = rest.split_once(", process ").unwrap();
        let (port, process) = (port.parse().unwrap(), process.to_owned());
        Self { client, input, socket, socks, port, process }
    }

    fn work(&self) {
        let mut long_lived: Vec<UnixStream> = (0..LONG_LIVED)
            .map(|_| {
                let stream = UnixStream::connect(&self.socket).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                stream
            })
            .collect();
        long_lived.iter_mut().for_each(answers);
        std::thread::scope(|scope| {
            for _ in 0..BUSY {
                scope.spawn(|| through_unix(&self.socket));
                scope.spawn(|| through_socks(self.socks, self.port));
            }
        });
        long_lived.iter_mut().for_each(answers);
    }

    /// The process of the editor's server.
    fn close(mut self) -> String {
        drop(self.input);
        assert!(self.client.wait().unwrap().success());
        self.process
    }
}

fn answers(stream: &mut UnixStream) {
    stream.write_all(b"x").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"X");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editors_server_is_started_reached_and_found_again() {
    if !are_there(&["python3"]) {
        return;
    }
    let server = Server::start(None).await;
    let here = tempfile::tempdir().unwrap();
    let windows = tokio::task::spawn_blocking(move || {
        let processes = ["first", "second"].map(|name| {
            let editor = Editor::open(&server, here.path().join(name));
            editor.work();
            editor.close()
        });
        (server, processes)
    });
    let (_server, processes) = windows.await.unwrap();
    assert_eq!(processes[0], processes[1], "the server has outlived its connection");
    assert!(Path::new("/proc").join(&processes[0]).exists());
    assert!(Command::new("kill").arg(&processes[0]).status().unwrap().success());
}
