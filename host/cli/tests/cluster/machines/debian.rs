//! A whole day of a customer of a Debian pod. `cargo xtask cluster machines` and `cargo xtask test
//! --whole` make the image, which needs the network, and run this; the pod itself needs none.

use super::{SoldPod, Tunnel, allow_server, start, succeeded};
use crate::support::testbed::{CLUSTER, load, output, root, sized, wait_for};
use serde_json::json;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "paygress.local/debian:12";
const TIER: &str = "id = \"machine\", cpu_millicores = 1000, memory_mib = 512";
const SOON: Duration = Duration::from_secs(60);
/// The editor's server, of the tests of `paygress-sshd`.
const EDITOR: &str = include_str!("../../../../sshd/tests/openssh/editor-server.py");

#[test]
#[ignore = "needs the testbed and the Debian image: run `cargo xtask cluster machines`"]
fn a_debian_pod_is_a_machine_of_its_own() {
    let archive = root().join("target/images/debian.tar");
    if !archive.exists() {
        println!("NOT RUN: a Debian pod, bought and used: run `cargo xtask cluster machines`");
        return;
    }
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    load(&archive);
    let testbed = start("machines-debian", TIER, &[], &[("SSH_BASE_IMAGE", IMAGE)]);
    // A quarter of an hour.
    let machine = SoldPod::buy(&testbed, 181, &json!({}));
    assert_eq!(machine.answer["root"], json!(true));
    assert_eq!(machine.run("id -un; . /etc/os-release; echo $ID"), "root\ndebian\n");
    type Step = (&'static str, fn(&SoldPod));
    let steps: [Step; 7] = [
        ("apt-get installs a package from a repository, which runs Python", installs_a_package),
        ("Ansible installs it, finds it installed, and removes it", has_packages_by_ansible),
        ("useradd, su, sudo, chown", has_users),
        ("git commits a file, vim edits it, git shows the change", edits_a_file_in_git),
        ("a web server on port 80, seen through -L", serves_the_web),
        ("an editor's server, found again by a second window", serves_an_editor),
        ("a large file up by rsync, down by sftp", moves_a_large_file),
    ];
    for (step, run) in steps {
        let begun = Instant::now();
        run(&machine);
        println!("{step}: {:.1} s", begun.elapsed().as_secs_f64());
    }
}

/// A package of the test, as `dpkg-deb` builds it, and the index of its repository.
fn repository(directory: &Path) -> PathBuf {
    let (package, files) = (directory.join("package"), directory.join("repository"));
    for path in ["DEBIAN", "usr/bin"] {
        std::fs::create_dir_all(package.join(path)).unwrap();
    }
    std::fs::create_dir(&files).unwrap();
    // All may read and enter it: apt downloads as a user of its own.
    for path in [&package, &files] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let control = "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Paygress <tests@paygress.local>\nDepends: python3\nDescription: prints a greeting\n";
    std::fs::write(package.join("DEBIAN/control"), control).unwrap();
    let program = package.join("usr/bin/greeting");
    let script = "#!/usr/bin/python3\nimport hashlib, json, sqlite3\nprint(json.dumps({'sum': sum(range(101))}))\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    let archive = files.join("greeting.deb");
    let mut build = Command::new("dpkg-deb");
    output(build.args(["--root-owner-group", "--build"]).arg(&package).arg(&archive));
    let bytes = std::fs::metadata(&archive).unwrap().len();
    let index =
        format!("{control}Filename: ./greeting.deb\nSize: {bytes}\nSHA256: {}\n", sha256(&archive));
    std::fs::write(files.join("Packages"), index).unwrap();
    files
}

fn sha256(file: &Path) -> String {
    let printed = output(Command::new("sha256sum").arg(file));
    printed.split_whitespace().next().unwrap().to_owned()
}

fn installs_a_package(machine: &SoldPod) {
    let files = repository(machine.key.0.path());
    let copied = machine.client("scp").arg("-r").arg(files).arg("pod:/srv/repository").output();
    succeeded("scp -r", copied.unwrap());
    machine.run("echo 'deb [trusted=yes] file:/srv/repository ./' > /etc/apt/sources.list");
    machine.run("apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes greeting");
    assert_eq!(machine.run("greeting"), "{\"sum\": 5050}\n");
    assert_eq!(machine.run("dpkg-query --show --showformat='${Version}' greeting"), "1.0");
    machine.run("apt-get purge --yes greeting && ! command -v greeting");
}

/// The repository is that of the step before. Ansible's module uses the library of apt in the pod.
fn has_packages_by_ansible(machine: &SoldPod) {
    let inventory = machine.path("inventory");
    std::fs::write(&inventory, "pod ansible_python_interpreter=/usr/bin/python3\n").unwrap();
    let ssh = format!("-F {}", machine.path("config").display());
    for (arguments, expected) in [
        ("name=greeting", "CHANGED"),
        ("name=greeting", "SUCCESS"),
        ("name=greeting state=absent purge=yes", "CHANGED"),
    ] {
        let mut ansible = Command::new(root().join("target/venv-ssh/bin/ansible"));
        ansible.env("ANSIBLE_HOME", machine.path("ansible")).env("ANSIBLE_SSH_ARGS", &ssh);
        ansible.arg("-i").arg(&inventory).args(["pod", "-m", "apt", "-a", arguments]);
        let printed = succeeded("ansible", ansible.stdin(Stdio::null()).output().unwrap());
        assert!(printed.contains(expected), "{arguments}: {printed}");
    }
}

fn has_users(machine: &SoldPod) {
    machine.run("useradd --create-home --shell /bin/bash bob && echo data > /srv/data");
    machine.run("chown bob: /srv/data && chmod 600 /srv/data");
    assert_eq!(machine.run("su bob -c 'id -un; cat /srv/data'"), "bob\ndata\n");
    // By habit: it wants no password of root, and never waits for one.
    assert_eq!(machine.run("sudo -n id -u && sudo -n -u bob id -un"), "0\nbob\n");
    assert_eq!(machine.run("su bob -c 'cat /etc/shadow 2>/dev/null || echo refused'"), "refused\n");
}

fn edits_a_file_in_git(machine: &SoldPod) {
    machine.run("git init --quiet /srv/project && echo first > /srv/project/file");
    let author = "-c user.name=alice -c user.email=alice@paygress.local";
    machine.run(&format!("cd /srv/project && git add file && git {author} commit --quiet -m one"));
    machine.run("vim.tiny -e -s '+s/first/second/' +wq /srv/project/file");
    let changed = machine.run("git -C /srv/project diff --unified=0 | tail -n 2");
    assert_eq!(changed, "-first\n+second\n");
    assert_eq!(machine.run("git -C /srv/project log --format='%an: %s'"), "alice: one\n");
}

fn serves_the_web(machine: &SoldPod) {
    machine.run("mkdir /srv/web && echo 'from the pod' > /srv/web/index.html");
    let server =
        "nohup python3 -m http.server 80 --directory /srv/web > /srv/log 2>&1 < /dev/null &";
    machine.run(server);
    let tunnel = Tunnel::open(machine, 80);
    let mut answer = String::new();
    // The server starts, and so does the tunnel.
    wait_for("the web server of the pod", SOON, || {
        answer = tunnel.get();
        !answer.is_empty()
    });
    assert!(answer.contains(" 200 OK") && answer.ends_with("from the pod\n"), "{answer}");
    assert_eq!(machine.run("curl --silent --fail http://127.0.0.1/"), "from the pod\n");
}

/// The script that an editor sends: a second window finds the server of the first.
fn bootstrap() -> String {
    format!(
        "mkdir -p ~/.editor; cd ~/.editor\ncat > server.py << 'PROGRAM'\n{EDITOR}PROGRAM\n\
         if [ ! -e log ]; then nohup python3 server.py socket > log 2>&1 < /dev/null & fi\n\
         until grep -q listening log; do sleep 0.05; done\ncat log\nexec cat > /dev/null\n"
    )
}

/// A window of an editor.
struct EditorSession {
    client: Child,
    /// Its script's input is open as long as the window.
    input: ChildStdin,
    socket: PathBuf,
    /// What the server has printed.
    line: String,
}

impl EditorSession {
    fn open(machine: &SoldPod, name: &str) -> Self {
        let socket = machine.path(name);
        let mut command = machine.client("ssh");
        command.arg("-T").arg("-L").arg(format!("{}:/root/.editor/socket", socket.display()));
        command.args(["pod", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(bootstrap().as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line}");
        Self { client, input, socket, line }
    }

    fn asks(&self, text: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn close(mut self) -> String {
        drop(self.input);
        assert!(self.client.wait().unwrap().success());
        self.line
    }
}

fn serves_an_editor(machine: &SoldPod) {
    let lines = ["first", "second"].map(|name| {
        let window = EditorSession::open(machine, name);
        assert_eq!(window.asks("open a file"), "OPEN A FILE");
        window.close()
    });
    assert_eq!(lines[0], lines[1], "the server outlives its connection");
}

fn moves_a_large_file(machine: &SoldPod) {
    let (up, down) = (machine.path("large"), machine.path("large-again"));
    let megabytes: u64 = sized(50, 500);
    println!("{megabytes} MB");
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(megabytes * 1_000_000);
    std::io::copy(&mut random, &mut std::fs::File::create(&up).unwrap()).unwrap();
    let sum = sha256(&up);
    let begun = Instant::now();
    let shell = format!("ssh -F {}", machine.path("config").display());
    let mut rsync = Command::new("rsync");
    rsync.args(["--rsh", &shell]).arg(&up).arg("pod:/srv/large").stdin(Stdio::null());
    succeeded("rsync", rsync.output().unwrap());
    println!("rsync: {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(machine.run("sha256sum < /srv/large"), format!("{sum}  -\n"));
    std::fs::remove_file(&up).unwrap();
    let begun = Instant::now();
    machine.sftp(&format!("get /srv/large {}\n", down.display()));
    println!("sftp: {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(sha256(&down), sum);
}
