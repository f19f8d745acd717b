//! What is read at once: a buffer that is long only while much is read.

use crate::limits;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Short in a session in which somebody types, or nobody does.
pub(crate) struct Piece {
    buffer: Vec<u8>,
    /// Of the last read.
    count: usize,
    most: usize,
}

impl Piece {
    pub(crate) fn new(most: usize) -> Self {
        Self { buffer: vec![0; limits::IDLE_PIECE_BYTES], count: 0, most }
    }

    /// The next bytes; none at the end.
    pub(crate) async fn read(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<&[u8]> {
        self.fit();
        self.count = reader.read(&mut self.buffer).await?;
        Ok(self.buffer.get(..self.count).unwrap_or_default())
    }

    /// To what the last read has shown.
    fn fit(&mut self) {
        let length = self.buffer.len();
        let fitting = match self.count {
            count if count == length => self.most,
            count if count < limits::IDLE_PIECE_BYTES => limits::IDLE_PIECE_BYTES,
            _ => length,
        };
        if fitting != length {
            self.buffer = vec![0; fitting];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_is_long_only_while_much_is_read() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (much, typed) = bytes.split_at(bytes.len() - 2);
        let mut piece = Piece::new(limits::PIECE_BYTES);
        let (mut received, mut longest) = (Vec::new(), 0);
        for mut reader in [much, &typed[..1], &typed[1..]] {
            while !reader.is_empty() {
                received.extend_from_slice(piece.read(&mut reader).await.unwrap());
                longest = longest.max(piece.count);
            }
        }
        assert!(received == bytes);
        assert_eq!(longest, limits::PIECE_BYTES);
        assert_eq!(piece.buffer.capacity(), limits::IDLE_PIECE_BYTES);
        assert_eq!(piece.read(&mut &b""[..]).await.unwrap(), b"");
    }
}
