//! The service in a pod of the cluster, by the steps of docs/operating.md for minikube.

use super::deployed::with;
use super::{Daemon, Deployed, Outside, admin_kubeconfig, kubectl, output, root, state, wait_for};
use crate::support::secrets;
use paygress_sandbox::free_port;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the testbed is in the place of: the cluster, and how images come into it.
const NOT_RUN: [&str; 5] = [
    "minikube start --cni calico --container-runtime containerd",
    "docker build --tag paygress.local/paygress:1 .",
    "docker build --target paygress-ssh --tag paygress.local/ssh:1 .",
    "minikube image load paygress.local/paygress:1",
    "minikube image load paygress.local/ssh:1",
];
const SECRET: [&str; 5] = ["-n", "ingress-system", "get", "secret", "paygress"];

/// What these steps start, gone with this.
pub struct MinikubeSteps {
    /// Of the HTTP API, by the page's last command.
    pub address: SocketAddr,
    // In this order: what leads to the service first.
    _forward: Daemon,
    _service: Deployed,
}

impl MinikubeSteps {
    /// Runs the commands of the page. The Deployment is rolled out then, as the page waits for it.
    pub fn follow(outside: &Outside) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let commands = commands(outside, address.port());
        let (start, forward) = commands.rsplit_once('\n').unwrap();
        let checkout = checkout(outside);
        Deployed::prepare_without_secret(outside);
        let service = Deployed::deploy_unawaited(None, || {
            output(&mut shell(&checkout, start));
        });
        let values = "go-template={{range .data}}{{base64decode .}} {{end}}";
        let values = kubectl(&[&SECRET[..], &["-o", values]].concat());
        values.split_whitespace().for_each(secrets::add);
        let log = outside.logs.join("port-forward.log");
        let forward = Daemon::start(&mut shell(&checkout, forward), &log);
        wait_for("the way to the service", Duration::from_secs(30), || {
            TcpStream::connect(address).is_ok()
        });
        Self { address, _forward: forward, _service: service }
    }
}

/// The commands of the page but for [`NOT_RUN`], with what is ours in the place of theirs.
fn commands(outside: &Outside, port: u16) -> String {
    let page = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let (_, after) = page.split_once("\n### In minikube\n").unwrap();
    let (section, _) = after.split_once("\n## ").unwrap();
    let fences = section.split("```").filter_map(|part| part.strip_prefix("sh\n"));
    let lines = fences.flat_map(str::lines).map(str::trim);
    let commands = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (not_run, run): (Vec<&str>, Vec<&str>) = commands.partition(|line| NOT_RUN.contains(line));
    for line in &not_run {
        println!("NOT RUN: {line}");
    }
    assert_eq!(not_run, NOT_RUN);
    let ports = format!("{port}:80");
    let settings = [
        ("https://mint.example.com", outside.mint.as_str()),
        ("$(minikube ip)", "127.0.0.1"),
        ("8080:80", ports.as_str()),
    ];
    with(run.join("\n"), &settings)
}

/// A copy of what the page edits and applies.
fn checkout(outside: &Outside) -> PathBuf {
    let checkout = outside.directory.path().join("checkout");
    let copy = checkout.join("k8s");
    std::fs::create_dir_all(&copy).unwrap();
    let originals = ["base", "overlays"].map(|name| root().join("k8s").join(name));
    output(Command::new("cp").arg("-r").args(originals).arg(copy));
    checkout
}

/// An operator's, in this directory.
fn shell(directory: &Path, commands: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", commands]).current_dir(directory);
    shell
        .env("KUBECONFIG", admin_kubeconfig())
        .env("PATH", format!("{}:/usr/bin:/bin", state().join("bin").display()));
    shell
}
