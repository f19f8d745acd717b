//! The subsystem `sftp`: version 3 of the protocol with OpenSSH's extensions, as its `sftp-server`
//! has them. It runs in the server, which has the user's own rights, and every operation on a file
//! on a thread that may block.

mod answer;
mod extensions;
mod files;
mod listing;
mod packets;
mod state;
mod stream;

pub(crate) use stream::{refuse, serve};

use answer::{Answer, MAX_DATA_BYTES, NAMES_AT_ONCE, blocking, failure};
use bytes::Bytes;
use files::Request;
use packets::{Arguments, names, plain};
use russh_sftp::protocol::{
    Data, FileAttributes, Handle, OpenFlags, Packet, Status, StatusCode, Version,
};
use rustix::io::Errno;
use state::{Opened, Sftp, one_name};
use std::ffi::OsString;
use std::io;
use std::sync::Arc;

impl Sftp {
    /// The answer to a packet, with its length.
    async fn answer(&mut self, packet: Bytes) -> Answer<Bytes> {
        let (id, arguments) = (packets::id(&packet), Arguments::of(&packet));
        let Ok(request) = Packet::try_from(&mut packet.clone()) else {
            return plain(Packet::error(id, StatusCode::BadMessage));
        };
        match self.request(id, request, arguments).await {
            Ok(answer) => Ok(answer),
            Err(refused) => {
                let text = refused.error_message.unwrap_or_else(|| refused.status_code.to_string());
                plain(Packet::status(id, refused.status_code, &text, "en-US"))
            }
        }
    }

    /// `names` are those of the request, which has them as text.
    async fn request(&mut self, id: u32, request: Packet, mut names: Arguments) -> Answer<Bytes> {
        match request {
            Packet::Init(_) => {
                plain(Version { extensions: extensions::offered(), ..Version::new() })
            }
            Packet::Open(it) => plain(self.open(id, names.name()?, it.pflags, it.attrs).await?),
            Packet::Close(it) => plain(self.close(id, &it.handle).await?),
            Packet::Read(it) => plain(self.read(id, &it.handle, it.offset, it.len).await?),
            Packet::Write(it) => plain(self.write(id, &it.handle, it.offset, it.data).await?),
            Packet::Lstat(_) => {
                let request = Request::Link(self.path(names.name()?));
                plain(self.attributes(id, request).await?)
            }
            Packet::Stat(_) => {
                let request = Request::Path(self.path(names.name()?));
                plain(self.attributes(id, request).await?)
            }
            Packet::Fstat(it) => {
                plain(self.attributes(id, Request::Open(self.file(&it.handle)?)).await?)
            }
            Packet::SetStat(it) => {
                let request = Request::Path(self.path(names.name()?));
                plain(self.set_attributes(id, request, it.attrs).await?)
            }
            Packet::FSetStat(it) => {
                let request = Request::Open(self.file(&it.handle)?);
                plain(self.set_attributes(id, request, it.attrs).await?)
            }
            Packet::OpenDir(_) => plain(self.open_directory(id, names.name()?).await?),
            Packet::ReadDir(it) => self.read_directory(id, it.handle).await,
            Packet::Extended(it) => self.extension(id, &it.request, it.data).await,
            other => self.path_request(id, other, names).await,
        }
    }

    /// What is about paths alone.
    async fn path_request(&self, id: u32, request: Packet, mut names: Arguments) -> Answer<Bytes> {
        match request {
            Packet::Remove(_) => {
                let path = self.path(names.name()?);
                plain(self.run(id, move || Ok(rustix::fs::unlink(&path)?)).await?)
            }
            Packet::MkDir(it) => {
                let path = self.path(names.name()?);
                let make = move || files::make_directory(&path, it.attrs.permissions);
                plain(self.run(id, make).await?)
            }
            Packet::RmDir(_) => {
                let path = self.path(names.name()?);
                plain(self.run(id, move || std::fs::remove_dir(&path)).await?)
            }
            Packet::RealPath(_) => {
                let path = self.path(names.name()?);
                one_name(id, &blocking(move || files::real_path(&path)).await?)
            }
            Packet::Rename(_) => {
                let (old, new) = (self.path(names.name()?), self.path(names.name()?));
                plain(self.run(id, move || files::rename(&old, &new)).await?)
            }
            Packet::ReadLink(_) => {
                let path = self.path(names.name()?);
                one_name(id, &blocking(move || std::fs::read_link(&path)).await?)
            }
            // OpenSSH's order: what the link points to comes first, against the draft.
            Packet::Symlink(_) => {
                let (target, link) = (names.name()?, self.path(names.name()?));
                let make = move || std::os::unix::fs::symlink(target, &link);
                plain(self.run(id, make).await?)
            }
            _ => plain(Packet::error(id, StatusCode::BadMessage)),
        }
    }

    async fn open(
        &mut self,
        id: u32,
        name: OsString,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Answer<Handle> {
        let path = self.path(name);
        let file = blocking(move || files::open(&path, flags, attrs.permissions)).await?;
        self.add(id, Opened::File(file))
    }

    async fn close(&mut self, id: u32, handle: &str) -> Answer<Status> {
        match self.handles.remove(handle) {
            Some(opened) => {
                // Closing may block.
                let close = move || {
                    drop(opened);
                    Ok(())
                };
                self.run(id, close).await
            }
            None => Err(failure(&Errno::BADF.into())),
        }
    }

    async fn read(&self, id: u32, handle: &str, offset: u64, len: u32) -> Answer<Data> {
        let file = self.file(handle)?;
        let data = blocking(move || file.read(offset, len.min(MAX_DATA_BYTES))).await?;
        Ok(Data { id, data })
    }

    async fn write(&self, id: u32, handle: &str, offset: u64, data: Vec<u8>) -> Answer<Status> {
        let file = self.file(handle)?;
        self.run(id, move || file.write(offset, &data)).await
    }

    async fn set_attributes(
        &self,
        id: u32,
        request: Request,
        attrs: FileAttributes,
    ) -> Answer<Status> {
        self.run(id, move || files::set_attributes(&request, &attrs)).await
    }

    async fn open_directory(&mut self, id: u32, name: OsString) -> Answer<Handle> {
        let path = self.path(name);
        let directory = blocking(move || listing::Directory::open(path)).await?;
        self.add(id, Opened::Directory(Box::new(directory)))
    }

    async fn read_directory(&mut self, id: u32, handle: String) -> Answer<Bytes> {
        let mut directory = match self.handles.remove(&handle) {
            Some(Opened::Directory(directory)) => directory,
            // A file stays open.
            other => {
                self.handles.extend(other.map(|file| (handle, file)));
                return Err(failure(&Errno::BADF.into()));
            }
        };
        let known = Arc::clone(&self.names);
        let (directory, entries) = blocking(move || {
            let entries = directory.next(NAMES_AT_ONCE, &known);
            Ok((directory, entries))
        })
        .await?;
        self.handles.insert(handle, Opened::Directory(directory));
        if entries.is_empty() {
            return Err(failure(&io::ErrorKind::UnexpectedEof.into()));
        }
        names(id, &entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, Password};
    use crate::image;
    use std::path::Path;

    /// That of `alice`, who is also `admin`.
    fn sftp(home: &Path) -> Sftp {
        let account = Account {
            aliases: vec!["admin".to_owned()],
            ..Account::new("alice", Password::none(), home)
        };
        Sftp::new(Arc::new(account), listing::Names::default())
    }

    /// The answer without its length.
    async fn ask(sftp: &mut Sftp, request: &'static [u8]) -> Bytes {
        sftp.answer(Bytes::from_static(request)).await.unwrap().slice(4..)
    }

    fn string(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    }

    /// The answer to a request for an extension.
    async fn ask_extension(sftp: &mut Sftp, name: &str, arguments: &[u8]) -> Bytes {
        let packet = [&b"\xc8\0\0\0\x01"[..], string(name).as_slice(), arguments].concat();
        sftp.answer(packet.into()).await.unwrap().slice(4..)
    }

    /// Clients that have sent several requests know by it which one has failed.
    #[tokio::test]
    async fn what_is_malformed_is_answered_with_its_id() {
        let mut sftp = sftp(Path::new("/"));
        for (request, id) in [
            // No path, no such request, and an answer.
            (&b"\x0b\0\0\0\x07"[..], 7),
            (b"\x15\0\0\0\x08", 8),
            (b"\x66\0\0\0\x09\0\0\0\0", 9),
            // There is none.
            (b"\x0b\0", 0),
            (b"", 0),
        ] {
            let answer = ask(&mut sftp, request).await;
            let expected = [101, 0, 0, 0, id, 0, 0, 0, 5];
            assert_eq!(answer.get(..9), Some(&expected[..]), "{request:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_read_as_a_directory_stays_open() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("f"), "content").unwrap();
        let mut sftp = sftp(home.path());
        let open = b"\x03\0\0\0\x01\0\0\0\x01f\0\0\0\x01\0\0\0\0";
        assert_eq!(ask(&mut sftp, open).await, &b"\x66\0\0\0\x01\0\0\0\x010"[..]);
        let refused = ask(&mut sftp, b"\x0c\0\0\0\x02\0\0\0\x010").await;
        assert_eq!(refused.get(..9), Some(&b"\x65\0\0\0\x02\0\0\0\x02"[..]));
        let read = b"\x05\0\0\0\x03\0\0\0\x010\0\0\0\0\0\0\0\0\0\0\0\x09";
        assert_eq!(ask(&mut sftp, read).await, &b"\x67\0\0\0\x03\0\0\0\x07content"[..]);
    }

    /// `sshfs` keeps as many open as its programs do.
    #[tokio::test]
    async fn three_hundred_files_are_open_at_once() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("f"), "content").unwrap();
        let mut sftp = sftp(home.path());
        for number in 0..300 {
            let answer = ask(&mut sftp, b"\x03\0\0\0\x01\0\0\0\x01f\0\0\0\x01\0\0\0\0").await;
            assert_eq!(answer.first(), Some(&102), "{number}: {answer:?}");
        }
        sftp.max_handles = 300;
        let refused = ask(&mut sftp, b"\x0b\0\0\0\x02\0\0\0\x01/").await;
        assert_eq!(refused.get(..9), Some(&b"\x65\0\0\0\x02\0\0\0\x04"[..]));
    }

    #[tokio::test]
    async fn a_name_after_a_tilde_is_that_of_a_user() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        let mut sftp = sftp(&home);
        let of_root = image::home_of("root").unwrap().canonicalize().unwrap();
        for (path, expected) in [
            ("~", Some(home.clone())),
            ("~//f", Some(home.join("f"))),
            ("~alice", Some(home.clone())),
            ("~alice/f", Some(home.join("f"))),
            ("~admin//f", Some(home.join("f"))),
            ("~root", Some(of_root)),
            ("~nobody-here/f", None),
            ("f~alice", Some(home.join("f~alice"))),
        ] {
            let answer = ask_extension(&mut sftp, "expand-path@openssh.com", &string(path)).await;
            let answer = answer.slice(5..);
            let expected = match expected {
                Some(found) => {
                    [&b"\0\0\0\x01"[..], string(found.to_str().unwrap()).as_slice()].concat()
                }
                None => [&b"\0\0\0\x02"[..], string("no such user").as_slice()].concat(),
            };
            assert!(answer.starts_with(&expected), "{path}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_not_copied_into_itself() {
        let home = tempfile::tempdir().unwrap();
        for name in ["f", "g"] {
            std::fs::write(home.path().join(name), "content").unwrap();
        }
        std::fs::hard_link(home.path().join("f"), home.path().join("h")).unwrap();
        let mut sftp = sftp(home.path());
        for open in [
            &b"\x03\0\0\0\x01\0\0\0\x01f\0\0\0\x03\0\0\0\0"[..],
            b"\x03\0\0\0\x01\0\0\0\x01f\0\0\0\x03\0\0\0\0",
            b"\x03\0\0\0\x01\0\0\0\x01h\0\0\0\x03\0\0\0\0",
            b"\x03\0\0\0\x01\0\0\0\x01g\0\0\0\x03\0\0\0\0",
        ] {
            assert_eq!(ask(&mut sftp, open).await.first(), Some(&102));
        }
        // From the first handle; seven bytes, to behind them.
        let (from, length, to) = (0_u64.to_be_bytes(), 7_u64.to_be_bytes(), 7_u64.to_be_bytes());
        for (target, status) in [("0", 4), ("1", 4), ("2", 4), ("3", 0)] {
            let copy =
                [string("0").as_slice(), &from, &length, string(target).as_slice(), &to].concat();
            let answer = ask_extension(&mut sftp, "copy-data", &copy).await;
            let expected = [101, 0, 0, 0, 1, 0, 0, 0, status];
            assert_eq!(answer.get(..9), Some(&expected[..]), "{target}");
        }
        let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
        assert_eq!((read("f").as_str(), read("g").as_str()), ("content", "contentcontent"));
    }
}
