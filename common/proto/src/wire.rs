//! Bytes in network order, with every bounds check in one place.
//!
//! A [`Reader`] never panics: what is not there is a [`Truncated`]. A [`Writer`]
//! appends to a buffer that the caller sized, and panics when that promise is
//! broken, because then the bug is ours.

use thiserror::Error;

/// The bytes ended before the field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the bytes end before the field does")]
pub struct Truncated;

/// Reads fields from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn number(&mut self, n: usize) -> Result<u64, Truncated> {
        Ok(self
            .take(n)?
            .iter()
            .fold(0, |sum, &b| sum << 8 | u64::from(b)))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.number(1)? as u8)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(self.number(2)? as u16)
    }

    /// Three bytes.
    pub fn u24(&mut self) -> Result<u32, Truncated> {
        Ok(self.number(3)? as u32)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(self.number(4)? as u32)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.number(8)
    }
}

/// Appends fields to a vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Writer { out }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.bytes(&[v])
    }

    /// Two bytes.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// The low three bytes.
    pub fn u24(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes()[1..])
    }

    /// Four bytes.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        Writer::new(&mut out)
            .u8(1)
            .u16(0x0203)
            .u24(0x0004_0506)
            .u32(0x0708_090a)
            .u64(11);
        let mut r = Reader::new(&out);
        assert_eq!(
            (r.u8(), r.u16(), r.u24()),
            (Ok(1), Ok(0x0203), Ok(0x0004_0506))
        );
        assert_eq!((r.u32(), r.u64()), (Ok(0x0708_090a), Ok(11)));
        assert_eq!(r.u8(), Err(Truncated));
    }
}
