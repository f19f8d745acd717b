//! Files, by `sftp`, `scp` and, where the programs are, `rsync`.

use crate::server::{PASSWORD, Server, are_there, output, text};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

/// The size of the large file; with `PAYGRESS_SSH_BYTES` as many, for example 500 MB.
fn large_bytes() -> usize {
    std::env::var("PAYGRESS_SSH_BYTES").map_or(40 << 20, |bytes| bytes.parse().unwrap())
}

/// Content that shows a piece at the wrong place.
fn write_numbers(path: &Path, bytes: usize) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for number in 0..bytes.div_euclid(16) {
        writeln!(file, "{number:>15}").unwrap();
    }
    file.into_inner().unwrap();
}

fn same(one: &Path, other: &Path) -> bool {
    Command::new("cmp").arg(one).arg(other).status().unwrap().success()
}

/// Runs these commands in `sftp`, in this directory here and in the home there.
async fn sftp(server: &Server, here: &Path, commands: impl AsRef<[u8]>) -> Output {
    let batch = here.join("batch");
    std::fs::write(&batch, commands).unwrap();
    let mut command = server.client("sftp", "-P");
    // `-b` turns passwords off.
    command.args(["-o", "BatchMode=no", "-b"]).arg(batch).arg("alice@127.0.0.1").current_dir(here);
    output(command).await
}

// long: one command after the other on the same files.
#[tokio::test(flavor = "multi_thread")]
async fn sftp_does_what_openssh_does_with_files() {
    let server = Server::start(None).await;
    let (here, there) = (tempfile::tempdir().unwrap(), server.home.path());
    std::fs::write(here.path().join("up"), "content\n").unwrap();
    std::fs::set_permissions(here.path().join("up"), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    let done = sftp(
        &server,
        here.path(),
        "pwd\nmkdir dir\nput -p up dir/file\nln -s file dir/soft\nln dir/file dir/hard\n\
         rename dir/hard dir/renamed\nchmod 600 dir/renamed\ncd dir\nls -1\ndf\n\
         get file down\nreget file down\nmkdir old\nrename old new\nrmdir new\ncp file copy\n\
         put -f up synced\nrm copy\n",
    )
    .await;
    let shown = text(&done.stdout);
    assert!(done.status.success(), "{shown}{}", text(&done.stderr));
    let home = there.canonicalize().unwrap();
    assert!(shown.contains(&format!("Remote working directory: {}", home.display())), "{shown}");
    assert!(shown.contains("file\nrenamed\nsoft\n"), "{shown}");
    assert!(shown.contains("%Capacity") || shown.contains("Avail"), "{shown}");
    let file = there.join("dir/file");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "content\n");
    assert_eq!(std::fs::read_to_string(here.path().join("down")).unwrap(), "content\n");
    let (up, put) = (here.path().join("up").metadata().unwrap(), file.metadata().unwrap());
    assert_eq!((put.mode() & 0o777, put.nlink()), (0o600, 2), "the mode of its second name");
    assert_eq!(put.mtime(), up.mtime(), "put -p keeps the time");
    assert_eq!(std::fs::read_link(there.join("dir/soft")).unwrap(), Path::new("file"));
    let mut names: Vec<String> = std::fs::read_dir(there.join("dir"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "renamed", "soft", "synced"]);
    for (command, message) in [
        ("get none", "not found"),
        ("rmdir dir", "Failure"),
        ("rm dir", "Failure"),
        ("mkdir dir", "Failure"),
        ("ls none", "not found"),
    ] {
        let refused = sftp(&server, here.path(), &format!("{command}\n")).await;
        let shown = text(&refused.stderr);
        assert!(!refused.status.success() && shown.contains(message), "{command}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_need_not_be_utf_8() {
    let server = Server::start(None).await;
    let (here, there) = (tempfile::tempdir().unwrap(), server.home.path());
    std::fs::write(here.path().join("up"), "content\n").unwrap();
    let batch =
        b"put up \xe9\nls -1\nrename \xe9 x\xe9\nget x\xe9 down\nln -s x\xe9 s\nmkdir d\xe9\n\
                  put up d\xe9/\xe8\nput up d\xe9/\xea\nrm d\xe9/\xe8\nput up \xe7\nrm \xe7\n";
    let done = sftp(&server, here.path(), batch).await;
    let shown = text(&done.stdout);
    assert!(done.status.success() && shown.contains("\\351\n"), "{shown}{}", text(&done.stderr));
    assert_eq!(std::fs::read_to_string(here.path().join("down")).unwrap(), "content\n");
    let names = |directory: &Path| {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_vec()).collect();
        names.sort();
        names
    };
    assert_eq!(names(there), [&b"d\xe9"[..], b"s", b"x\xe9"]);
    assert_eq!(names(&there.join(OsStr::from_bytes(b"d\xe9"))), [b"\xea"]);
    let target = std::fs::read_link(there.join("s")).unwrap();
    assert_eq!(target.as_os_str().as_bytes(), b"x\xe9");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_and_down_intact() {
    let server = Server::start(None).await;
    let (here, there) = (tempfile::tempdir().unwrap(), server.home.path());
    let (up, down) = (here.path().join("up"), here.path().join("down"));
    write_numbers(&up, large_bytes());
    let started = Instant::now();
    let done = sftp(&server, here.path(), "put up file\nget file down\n").await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    println!("sftp: {} bytes up and down in {:?}", large_bytes(), started.elapsed());
    assert!(same(&up, &there.join("file")) && same(&up, &down));
}

/// `scp` by SFTP, and by the program `scp` in the pod.
#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_trees_by_both_protocols() {
    let server = Server::start(None).await;
    for protocol in ["-s", "-O"] {
        let here = tempfile::tempdir().unwrap();
        let tree = here.path().join("tree");
        std::fs::create_dir_all(tree.join("sub dir")).unwrap();
        write_numbers(&tree.join("sub dir/a 'file'"), 3_000_000);
        std::fs::write(tree.join("empty"), "").unwrap();
        let copy = async |from: String, to: String| {
            let mut scp = server.client("scp", "-P");
            output({
                scp.args([protocol, "-rp", &from, &to]);
                scp
            })
            .await
        };
        let (local, remote) = (tree.display().to_string(), format!("alice@127.0.0.1:up{protocol}"));
        let up = copy(local, remote.clone()).await;
        assert!(up.status.success(), "{protocol}: {}", text(&up.stderr));
        let back = here.path().join("back");
        let down = copy(remote, back.display().to_string()).await;
        assert!(down.status.success(), "{protocol}: {}", text(&down.stderr));
        for file in ["sub dir/a 'file'", "empty"] {
            assert!(same(&tree.join(file), &back.join(file)), "{protocol} {file}");
        }
        let missing = copy("alice@127.0.0.1:none".to_owned(), "/dev/null".to_owned()).await;
        assert_eq!(missing.status.code(), Some(1), "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_copies_and_updates() {
    if !are_there(&["rsync"]) {
        return;
    }
    let server = Server::start(None).await;
    let here = tempfile::tempdir().unwrap();
    let up = here.path().join("up");
    std::fs::create_dir(&up).unwrap();
    write_numbers(&up.join("file"), 3_000_000);
    let shell = format!(
        "sshpass -e ssh -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o PreferredAuthentications=password",
        server.port
    );
    for round in ["copied", "updated"] {
        let mut rsync = Command::new("rsync");
        rsync.env("SSHPASS", PASSWORD).args(["-a", "--checksum", "-e", &shell]);
        rsync.arg(format!("{}/", up.display())).arg("alice@127.0.0.1:dir");
        let done = output(rsync).await;
        assert!(done.status.success(), "{round}: {}", text(&done.stderr));
        assert!(same(&up.join("file"), &server.home.path().join("dir/file")), "{round}");
        write_numbers(&up.join("file"), 3_500_000);
    }
}
