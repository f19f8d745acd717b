//! What requests are answered with, and the bounds of that.

use russh_sftp::protocol::{Status, StatusCode};
use russh_sftp::server::StatusReply;
use rustix::io::Errno;
use std::io;

/// The longest packet of a client, and of an answer to it, as OpenSSH's.
pub(super) const MAX_PACKET_BYTES: u32 = 256 * 1_024;
/// What is left of it for the content of a file.
pub(super) const MAX_DATA_BYTES: u32 = MAX_PACKET_BYTES - 1_024;
/// Names in one answer.
pub(super) const NAMES_AT_ONCE: usize = 100;

pub(super) type Answer<T> = Result<T, StatusReply>;

pub(super) fn success(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: String::new(),
    }
}

/// The codes and texts of OpenSSH's sftp-server.
pub(super) fn failure(error: &io::Error) -> StatusReply {
    let (code, text) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => {
            (StatusCode::NoSuchFile, "No such file")
        }
        Some(Errno::PERM | Errno::ACCESS | Errno::FAULT) => {
            (StatusCode::PermissionDenied, "Permission denied")
        }
        Some(Errno::NAMETOOLONG | Errno::INVAL) => (StatusCode::BadMessage, "Bad message"),
        Some(Errno::NOSYS) => (StatusCode::OpUnsupported, "Operation unsupported"),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => (StatusCode::Eof, "End of file"),
        _ => (StatusCode::Failure, "Failure"),
    };
    code.with_message(text)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failure(&error)),
        Err(_) => Err(StatusCode::Failure.into()),
    }
}
