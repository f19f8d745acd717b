//! The program, as an operator calls it.

use paygress::sandbox::Sandbox;
use paygress_core::backend::policy::Slot;
use paygress_policy::Publisher;
use std::path::Path;
use std::process::{Command, Output};

/// A file that the build of the policies has written.
pub fn built(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name);
    path.to_string_lossy().into_owned()
}

/// A directory with the active components and their settings, as the operator publishes them.
pub fn published(sandbox: &Sandbox, policies: &Publisher) -> String {
    let directory = sandbox.directory.path().join("published");
    std::fs::create_dir(&directory).unwrap();
    let active = policies.history().pop().unwrap().set;
    for slot in Slot::ALL {
        let component = directory.join(format!("{slot}.wasm"));
        std::fs::copy(built(&format!("plugins/{slot}.wasm")), &component).unwrap();
        std::fs::write(component.with_extension("json"), &active[&slot].settings).unwrap();
    }
    directory.to_string_lossy().into_owned()
}

/// Runs the program in a sandbox's environment.
pub async fn paygress(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.args(arguments).env_clear().envs(&sandbox.environment);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What it prints; it must succeed.
pub async fn printed(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = paygress(sandbox, arguments).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
