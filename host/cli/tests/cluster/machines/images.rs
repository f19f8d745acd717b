//! Images that bring nothing of what a login needs, made of files in a second, without an engine.

use crate::support::testbed::{load as load_archive, output, root};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// An image, and what a login in it shows.
#[derive(Clone, Copy)]
pub(super) struct Image {
    /// As customers ask for it.
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    /// The home, and what the script prints, of root.
    pub(super) as_root: [&'static str; 2],
    /// The same of a user that the image does not know.
    pub(super) as_another: [&'static str; 2],
}

pub(super) const DISTROLESS: &str = "paygress.local/distroless:1";
/// Its own program is a web server at port 8080.
pub(super) const SERVING: &str = "paygress.local/serving:1";
const FOREIGN: &str = "paygress.local/foreign:1";
/// The default image of the first Paygress.
const LINUXSERVER: &str = "linuxserver/openssh-server:latest";

pub(super) const ALL: [Image; 3] = [
    Image {
        name: DISTROLESS,
        script: "/app; ls /home 2>/dev/null || echo no homes",
        as_root: ["/root", "the program of the image\nno homes\n"],
        as_another: ["/dev/shm/home", "the program of the image\nno homes\n"],
    },
    Image {
        name: FOREIGN,
        script: "echo \"$GREETING\" $PATH; cat /srv/app/data 2>/dev/null || echo refused",
        as_root: ["/root", "hello there /opt/tools/bin:/usr/bin:/.paygress/bin\nof the app\n"],
        as_another: [
            "/dev/shm/home",
            "hello there /opt/tools/bin:/usr/bin:/.paygress/bin\nrefused\n",
        ],
    },
    Image {
        name: LINUXSERVER,
        script: "ls /run/s6 2>/dev/null || echo not started; /init || echo \"ended with $?\"",
        as_root: ["/root", "not started\ns6 runs as 0\n"],
        as_another: ["/tmp/home", "not started\nended with 100\n"],
    },
];

/// It wants root, and then stays as process 1; the server of the image is of no use without it.
const INIT: &str = "#!/bin/sh\n[ \"$(id -u)\" = 0 ] || exit 100\nmkdir -p /run/s6\necho \"s6 runs as $(id -u)\"\n[ $$ != 1 ] || exec sleep 2147483647\n";

/// Makes all of them, and loads them into the cluster.
pub(super) fn load() {
    distroless();
    foreign();
    linuxserver();
}

/// One static program, which ends at once.
pub(super) fn distroless() {
    let files = Files::new();
    let source = files.0.path().with_extension("c");
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { puts(\"the program of the image\"); return 0; }\n",
    )
    .unwrap();
    let mut compiler = Command::new("gcc");
    output(compiler.arg("-static").arg("-o").arg(files.path("app")).arg(&source));
    std::fs::remove_file(source).unwrap();
    files.load(DISTROLESS, &["--entrypoint", r#"["/app"]"#]);
}

/// A web server, and a page.
pub(super) fn serving() {
    let files = Files::new();
    files.busybox("bin", &["sh", "httpd"]);
    files.file("srv/index.html", "from the image's own program\n", 0o644);
    for directory in ["tmp", "home", "root"] {
        files.directory(directory);
    }
    let program = r#"["/bin/httpd", "-f", "-p", "8080", "-h", "/srv"]"#;
    files.load(SERVING, &["--entrypoint", program]);
}

/// Another user's, in a directory that is theirs alone, and read-only otherwise.
fn foreign() {
    const USER: u32 = 4_321;
    let files = Files::new();
    files.busybox("opt/tools/bin", &["sh"]);
    files.file("etc/passwd", "app:x:4321:4321::/srv/app:/opt/tools/bin/sh\n", 0o444);
    files.file("srv/app/data", "of the app\n", 0o600);
    for directory in ["tmp", "home", "root"] {
        files.directory(directory);
    }
    for (path, mode) in
        [("etc", 0o555), ("tmp", 0o555), ("home", 0o555), ("root", 0o555), ("srv/app", 0o700)]
    {
        files.mode(path, mode);
    }
    for path in ["srv/app", "srv/app/data"] {
        chown(files.path(path), Some(USER), Some(USER)).unwrap();
    }
    let entrypoint = ["--entrypoint", r#"["/opt/tools/bin/sh", "-c", "exit 1"]"#];
    let user = ["--user", "4321:4321", "--workdir", "/srv/app"];
    let env = ["--env", "PATH=/opt/tools/bin:/usr/bin", "--env", "GREETING=hello there"];
    files.load(FOREIGN, &[&entrypoint[..], &user, &env].concat());
}

/// The layout of an image of linuxserver.io: Alpine, s6 as its entry point, `/config`.
fn linuxserver() {
    let files = Files::new();
    files.busybox("bin", &["sh", "id", "mkdir", "sleep", "ls", "cat"]);
    files.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nabc:x:911:911::/config:/bin/false\n",
        0o644,
    );
    files.file("init", INIT, 0o755);
    files.file("usr/sbin/sshd", "#!/bin/sh\nexit 1\n", 0o755);
    files.file("etc/s6-overlay/s6-rc.d/svc-openssh-server/type", "longrun\n", 0o644);
    for (directory, mode) in
        [("config", 0o755), ("defaults", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777)]
    {
        files.directory(directory);
        files.mode(directory, mode);
    }
    let options = [
        "--entrypoint",
        r#"["/init"]"#,
        "--volume",
        "/config",
        "--port",
        "2222",
        "--env",
        "HOME=/root",
        "--env",
        "LSIO_FIRST_PARTY=true",
    ];
    // As containerd knows the name.
    files.load(&format!("docker.io/{LINUXSERVER}"), &options);
}

/// The files of an image.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn directory(&self, path: &str) {
        std::fs::create_dir_all(self.path(path)).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(path), mode).unwrap();
    }

    fn file(&self, path: &str, content: &str, mode: u32) {
        let place = self.path(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, content).unwrap();
        self.mode(path, mode);
    }

    /// A busybox with these programs.
    fn busybox(&self, directory: &str, programs: &[&str]) {
        self.directory(directory);
        let directory = self.path(directory);
        let mut places = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter();
        let own = places.find(|place| place.exists()).expect("busybox-static is installed");
        std::fs::copy(own, directory.join("busybox")).unwrap();
        for program in programs {
            symlink("busybox", directory.join(program)).unwrap();
        }
    }

    /// Packs them as this image, and loads it.
    fn load(self, name: &str, options: &[&str]) {
        let archive = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
        let mut pack = Command::new(root().join("k8s/testbed/oci-image"));
        output(pack.arg(archive.path()).arg(name).arg(self.0.path()).args(options));
        load_archive(archive.path());
    }
}
