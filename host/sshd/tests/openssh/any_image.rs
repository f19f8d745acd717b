//! Logins in images that have little or nothing of what a login needs.

use crate::rootfs::{Container, Rootfs, shown};
use crate::server::are_there;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Puts a file by `sftp`, gets it by `scp`, in the user's home.
fn moves_files(container: &Container) {
    let here = tempfile::tempdir().unwrap();
    let numbers: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(here.path().join("up"), &numbers).unwrap();
    std::fs::write(here.path().join("batch"), "put up there\n").unwrap();
    let mut sftp = container.client("sftp", "-P");
    sftp.args(["-o", "BatchMode=no", "-b", "batch", "alice@127.0.0.1"]).current_dir(&here);
    let done = sftp.output().unwrap();
    assert!(done.status.success(), "{}", shown(&done));
    let mut scp = container.client("scp", "-P");
    let done = scp.args(["alice@127.0.0.1:there", "down"]).current_dir(&here).output().unwrap();
    assert!(done.status.success(), "{}", shown(&done));
    assert_eq!(std::fs::read_to_string(here.path().join("down")).unwrap(), numbers);
}

/// The socket of a forwarded agent answers, in this directory.
fn forwards_an_agent(container: &Container, directory: &str) {
    let ssh = container.client("ssh", "-p");
    let mut command = Command::new("ssh-agent");
    command.arg(ssh.get_program()).args(ssh.get_args()).args(["-A", "alice@127.0.0.1"]);
    command.arg("test -S \"$SSH_AUTH_SOCK\" && echo \"$SSH_AUTH_SOCK\"").stdin(Stdio::null());
    command.env("SSHPASS", crate::server::PASSWORD);
    let socket = shown(&command.output().unwrap());
    assert!(socket.starts_with(&format!("{directory}/ssh-")), "{socket}");
}

/// The host keys that the server offers, as the termination log has them.
fn host_keys(container: &Container) -> Vec<String> {
    let mut scan = Command::new("ssh-keyscan");
    let scanned = scan.args(["-p", &container.port.to_string(), "127.0.0.1"]).output().unwrap();
    let scanned = String::from_utf8(scanned.stdout).unwrap();
    let keys = scanned.lines().filter(|line| !line.starts_with('#'));
    let mut keys: Vec<String> =
        keys.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    keys.sort();
    keys
}

/// What is typed into a login shell without a terminal.
fn login_shell(container: &Container, typed: &str) -> String {
    let mut ssh = container.client("ssh", "-p");
    ssh.args(["-T", "alice@127.0.0.1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ssh.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    shown(&child.wait_with_output().unwrap())
}

#[test]
fn root_of_an_empty_image_has_all_that_a_login_needs() {
    let Some(image) = Rootfs::scratch(0, "root of an empty image") else { return };
    let started = Instant::now();
    let container = image.start("rw", &["IMAGE=scratch"]);
    println!("an empty image: the server answers after {:?}", started.elapsed());
    let (alice, root) = ("alice", "root");
    let login = "echo $USER $LOGNAME $HOME $SHELL $IMAGE; id -un; pwd; stat -c %a /tmp /root";
    let expected = "/root /bin/sh scratch\nroot\n/root\n1777\n700\n";
    assert_eq!(container.run(alice, &[], login), format!("alice alice {expected}"));
    assert_eq!(container.run(root, &[], login), format!("root root {expected}"));
    assert_eq!(
        container.run(alice, &[], "echo $PATH"),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/.paygress/bin\n"
    );
    assert_eq!(container.run(alice, &[], "cat /etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
    let script = "printf '#!/bin/sh\\necho script\\n' > s; chmod +x s; ./s; touch /.paygress/x";
    let refused = "script\ntouch: /.paygress/x: Read-only file system\n";
    assert_eq!(container.run(alice, &[], script), refused);
    assert!(container.run(alice, &["-tt"], "tty").starts_with("/dev/pts/"));
    assert_eq!(login_shell(&container, "echo in $0\n"), "in -sh\n");
    // A home that is removed locks nobody out.
    let gone = container.run(alice, &[], "cd /; rm -r /root; echo gone");
    assert_eq!(gone, "gone\n");
    assert_eq!(container.run(alice, &[], "pwd; mkdir -m 700 /root"), "/\n");
    moves_files(&container);
    forwards_an_agent(&container, "/tmp");
}

#[test]
fn a_foreign_user_of_an_empty_read_only_image_has_a_place() {
    let Some(image) = Rootfs::scratch(4321, "a read-only image") else { return };
    let container = image.start("ro", &["HOME=/", "PATH=/none"]);
    assert_eq!(
        container.run("alice", &[], "echo $USER $HOME $SHELL $TMPDIR $PATH; id -u; pwd"),
        "alice /dev/shm/home /.paygress/bin/sh /dev/shm /none:/.paygress/bin\n\
         4321\n/dev/shm/home\n"
    );
    assert!(container.run("alice", &["-tt"], "tty").starts_with("/dev/pts/"));
    assert!(container.run("root", &[], "id").contains("Permission denied"), "root is another user");
    moves_files(&container);
    forwards_an_agent(&container, "/dev/shm");
    let mut installed: Vec<&str> = image.log.lines().collect();
    installed.sort_unstable();
    assert_eq!(host_keys(&container), installed, "no RSA key in a directory that is read-only");
}

/// An image with a user, programs, variables and a profile of its own.
fn own_image(uid: u32, test: &str) -> Option<(Rootfs, String)> {
    let image = Rootfs::scratch(uid, test)?;
    image.program(Path::new("/bin/bash"));
    std::os::unix::fs::symlink("bash", image.path("bin/sh")).unwrap();
    let passwd =
        "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/srv/node:/bin/bash".to_owned();
    image.file("etc/passwd", &passwd);
    image.file("srv/node/.bashrc", "");
    image.file("root/.bashrc", "");
    image.give_to_user("etc/passwd");
    image.give_to_user("srv/node");
    image.script("opt/bin/cat", "#!/bin/sh\necho the cat of the image\n");
    image.file("etc/profile", "PATH=/bin\nfor file in /etc/profile.d/*.sh; do . $file; done\n");
    image.file("etc/profile.d/own.sh", "export OF_PROFILE=1\n");
    Some((image, passwd))
}

const VARIABLES: [&str; 2] = ["PATH=/opt/bin:/bin", "GREETING=hello there"];

#[test]
fn what_an_image_has_comes_first_and_stays() {
    let Some((image, passwd)) = own_image(1000, "an image with a user") else { return };
    let container = image.start("rw", &VARIABLES);
    assert_eq!(
        container.run("alice", &[], "echo $USER $HOME $SHELL \"$GREETING\" $PATH; cat; type -p wc"),
        "alice /srv/node /bin/bash hello there /opt/bin:/bin:/.paygress/bin\n\
         the cat of the image\n/.paygress/bin/wc\n"
    );
    assert_eq!(container.run("alice", &[], "id -un; wc -l < /etc/passwd"), "node\n1\n");
    assert_eq!(std::fs::read_to_string(image.path("etc/passwd")).unwrap(), passwd);
    moves_files(&container);
    // Where the user may not write, the profile is as the image has it.
    assert!(!image.path("etc/profile.d/zz-paygress.sh").exists());
    assert_eq!(login_shell(&container, "echo $PATH $OF_PROFILE\n"), "/bin 1\n");
}

#[test]
fn the_search_path_outlives_the_profile_of_a_login_shell() {
    let Some((image, passwd)) = own_image(0, "an image with a profile") else { return };
    let container = image.start("rw", &VARIABLES);
    assert_eq!(
        login_shell(&container, "echo $PATH $OF_PROFILE; shopt login_shell; id -un\n"),
        "/opt/bin:/bin:/bin:/.paygress/bin 1\nlogin_shell    \ton\nroot\n"
    );
    assert_eq!(std::fs::read_to_string(image.path("etc/passwd")).unwrap(), passwd);
}

/// The libraries that it names are of the image's glibc: the server's must not load them.
#[test]
fn names_are_resolved_without_the_images_nsswitch() {
    let Some(image) = Rootfs::scratch(0, "an image with nsswitch.conf") else { return };
    image.file("etc/nsswitch.conf", "hosts: none\n");
    image.file("etc/hosts", "127.0.0.1 a.name.of.hosts\n");
    let container = image.start("rw", &[]);
    let mut ssh = container.client("ssh", "-p");
    ssh.args(["-W", &format!("a.name.of.hosts:{}", container.port), "alice@127.0.0.1"]);
    let banner = shown(&ssh.output().unwrap());
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");
}

/// Where images that are linked with musl have its loader, which is its C library as well.
fn loader_of_musl() -> PathBuf {
    let files = std::fs::read_dir("/lib").unwrap().map(|file| file.unwrap());
    let mut loaders =
        files.filter(|file| file.file_name().to_string_lossy().starts_with("ld-musl-"));
    loaders.next().expect("musl-tools brings it").path()
}

/// As an image of Alpine has its shell. What it runs besides is the server's busybox.
#[test]
fn the_shell_of_an_image_may_be_linked_with_musl() {
    if !are_there(&["musl-gcc"]) {
        return;
    }
    let Some(image) = Rootfs::scratch(0, "an image with musl") else { return };
    image.file("etc/passwd", "root:x:0:0:of musl:/root:/bin/ash\n");
    image.file("usr/src/shell.c", include_str!("shell.c"));
    std::fs::create_dir_all(image.path("bin")).unwrap();
    let (source, shell) = (image.path("usr/src/shell.c"), image.path("bin/ash"));
    let compiled = Command::new("musl-gcc").arg("-o").args([&shell, &source]).status();
    assert!(compiled.unwrap().success());
    let loader = loader_of_musl();
    let named = loader.to_str().unwrap().as_bytes();
    let program = std::fs::read(&shell).unwrap();
    assert!(program.windows(named.len()).any(|bytes| bytes == named), "{}", loader.display());
    image.copy(&loader);
    std::os::unix::fs::symlink("ash", image.path("bin/sh")).unwrap();

    let container = image.start("rw", &["IMAGE=musl"]);
    for (script, expected) in [
        ("whoami", "root\n"),
        ("echo $IMAGE $SHELL $HOME $USER", "musl /bin/ash /root alice\n"),
        ("id -u", "0\n"),
        ("/bin/sh -c whoami", "root\n"),
    ] {
        assert_eq!(container.run("alice", &[], script), expected, "{script}");
    }
    assert!(container.run("alice", &["-tt"], "tty").starts_with("/dev/pts/"));
    assert_eq!(login_shell(&container, "echo $HOME\nwhoami\n"), "/root\nroot\n");
    let mut ssh = container.client("ssh", "-p");
    let ended = ssh.args(["alice@127.0.0.1", "exit 7"]).status().unwrap();
    assert_eq!(ended.code(), Some(7));
    moves_files(&container);
}

/// The layout of an image of Ubuntu, with Debian's programs: directories below `usr`, and a user.
fn ubuntu(uid: u32) -> Option<Rootfs> {
    let image = Rootfs::scratch(uid, "the layout of Ubuntu")?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        let (place, below) = (image.path(name), image.path("usr").join(name));
        std::fs::create_dir_all(image.path("usr")).unwrap();
        // The server's libraries are there, where it is not static.
        match place.exists() {
            true => std::fs::rename(&place, below).unwrap(),
            false => std::fs::create_dir(below).unwrap(),
        }
        std::os::unix::fs::symlink(format!("usr/{name}"), place).unwrap();
    }
    image.program(Path::new("/bin/bash"));
    image.program(Path::new("/bin/dash"));
    std::os::unix::fs::symlink("dash", image.path("usr/bin/sh")).unwrap();
    image.file("etc/os-release", "NAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\n");
    image.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n",
    );
    for home in ["root", "home/ubuntu"] {
        image.file(&format!("{home}/.bashrc"), "case $- in *i*) ;; *) return ;; esac\n");
    }
    image.give_to_user("home/ubuntu");
    Some(image)
}

#[test]
fn the_layout_and_the_user_of_ubuntu_are_used_as_they_are() {
    for (uid, name, home) in [(1000, "ubuntu", "/home/ubuntu"), (0, "root", "/root")] {
        let Some(image) = ubuntu(uid) else { continue };
        let container = image.start("rw", &[]);
        let script = "echo $USER $HOME $SHELL; . /etc/os-release; echo $ID; id -un; readlink /bin";
        let expected = format!("alice {home} /bin/bash\nubuntu\n{name}\nusr/bin\n");
        assert_eq!(container.run("alice", &[], script), expected);
        let shell = "echo ${BASH_VERSION:+by bash}; type -p dash; /bin/sh -c 'echo by $0'";
        let shells = "by bash\n/usr/bin/dash\nby /bin/sh\n";
        assert_eq!(container.run("alice", &[], shell), shells, "{name}");
        assert_eq!(login_shell(&container, "id -un\n"), format!("{name}\n"));
        moves_files(&container);
    }
}
