//! Packets with names in them. Names are bytes, and russh-sftp, which reads and writes all other
//! packets, has text in their place.

use super::answer::{Answer, MAX_PACKET_BYTES, failure};
use bytes::Bytes;
use russh_sftp::protocol::{FileAttributes, Packet, StatusCode};
use russh_sftp::{de, ser};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The kind of the packet that answers with names.
const NAME: u8 = 104;
/// The kind of a request and its id, before its arguments.
const HEADER_BYTES: usize = 5;

/// The id of a request; 0 of one that is too short to have one.
pub(super) fn id(packet: &[u8]) -> u32 {
    let id = packet.get(1..HEADER_BYTES).and_then(|id| <[u8; 4]>::try_from(id).ok());
    id.map_or(0, u32::from_be_bytes)
}

/// Reads the arguments of a request, or an extension, one after the other.
pub(super) struct Arguments(pub(super) Bytes);

impl Arguments {
    /// Those of a request.
    pub(super) fn of(packet: &Bytes) -> Self {
        Self(packet.slice(HEADER_BYTES.min(packet.len())..))
    }

    pub(super) fn next<T: for<'de> serde::Deserialize<'de>>(&mut self) -> Answer<T> {
        de::from_bytes(&mut self.0).map_err(|_| failure(&Errno::INVAL.into()))
    }

    /// A name, or a path.
    pub(super) fn name(&mut self) -> Answer<OsString> {
        Ok(OsString::from_vec(self.next::<Vec<u8>>()?))
    }
}

/// One of the names of an answer.
pub(super) struct NameEntry {
    pub(super) name: Vec<u8>,
    /// As `ls -l` shows it.
    pub(super) long_name: Vec<u8>,
    pub(super) attrs: FileAttributes,
}

/// The next packet, without its length.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let length = stream.read_u32().await?;
    if length > MAX_PACKET_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut packet = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut packet).await?;
    Ok(packet.into())
}

/// A packet with its length.
pub(super) fn plain(packet: impl Into<Packet>) -> Answer<Bytes> {
    let packet: Packet = packet.into();
    Bytes::try_from(packet).map_err(|_| StatusCode::Failure.into())
}

pub(super) fn encode(value: &(impl serde::Serialize + ?Sized)) -> Answer<Bytes> {
    ser::to_bytes(value).map_err(|_| StatusCode::Failure.into())
}

/// The packet of an answer that is names, with its length.
pub(super) fn names(id: u32, entries: &[NameEntry]) -> Answer<Bytes> {
    let mut packet = vec![NAME];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&length(entries.len()));
    for NameEntry { name, long_name, attrs } in entries {
        put(&mut packet, name);
        put(&mut packet, long_name);
        packet.extend_from_slice(&encode(attrs)?);
    }
    let mut framed = Vec::new();
    put(&mut framed, &packet);
    Ok(framed.into())
}

fn put(packet: &mut Vec<u8>, bytes: &[u8]) {
    packet.extend_from_slice(&length(bytes.len()));
    packet.extend_from_slice(bytes);
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh_sftp::protocol::{File, Name};

    #[test]
    fn names_are_written_as_russh_sftp_writes_text() {
        let attrs =
            FileAttributes { size: Some(7), uid: Some(1), gid: Some(2), ..FileAttributes::empty() };
        let file =
            File { filename: "a".to_owned(), longname: "- a".to_owned(), attrs: attrs.clone() };
        let entry =
            || NameEntry { name: b"a".to_vec(), long_name: b"- a".to_vec(), attrs: attrs.clone() };
        for count in [0, 1, 2] {
            let own = names(9, &(0..count).map(|_| entry()).collect::<Vec<_>>()).unwrap();
            assert_eq!(own, plain(Name { id: 9, files: vec![file.clone(); count] }).unwrap());
        }
    }

    #[test]
    fn names_need_not_be_utf_8() {
        let entry = NameEntry {
            name: b"\xe9".to_vec(),
            long_name: b"- \xe9".to_vec(),
            attrs: FileAttributes::empty(),
        };
        let packet = names(1, &[entry]).unwrap();
        // Length, kind, id and count, then the name as it is.
        assert_eq!(packet.get(13..18), Some(&b"\0\0\0\x01\xe9"[..]));
        let request = Bytes::from_static(b"\x0d\0\0\0\x01\0\0\0\x02a\xe9\0\0\0\0");
        let mut arguments = Arguments::of(&request);
        assert_eq!(arguments.name().unwrap(), OsString::from_vec(b"a\xe9".to_vec()));
        assert_eq!(arguments.name().unwrap(), "");
        assert!(arguments.name().is_err(), "there is no third");
        assert!(Arguments::of(&Bytes::from_static(b"\x0d\0")).name().is_err());
        let longer = Bytes::from_static(b"\x0d\0\0\0\x01\xff\xff\xff\xffa");
        assert!(Arguments::of(&longer).name().is_err(), "its length is that of something else");
    }

    #[tokio::test]
    async fn a_packet_is_read_up_to_a_bound() {
        let mut stream = &b"\0\0\0\x02ab\0\0\0\x02c"[..];
        assert_eq!(read(&mut stream).await.unwrap(), "ab");
        assert!(read(&mut stream).await.is_err(), "it is cut off");
        let mut stream = &b"\xff\xff\xff\xff"[..];
        assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
