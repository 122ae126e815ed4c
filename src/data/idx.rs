//! IDX, the file format of MNIST: a magic number, the size of each axis, then the bytes in row-major order.
//!
//! The magic number is [0, 0, type, number of axes]; type 8 means unsigned bytes, the only one read here. Sizes are
//! big-endian u32. Files may be gzipped, which is told by their first two bytes and not by their name.
//! The format is described at the bottom of <http://yann.lecun.com/exdb/mnist/>.

use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The most bytes a file may hold, decompressed: 1 GiB. MNIST's largest holds 47 MB.
pub const LIMIT: u64 = 1 << 30;

/// The first two bytes of every gzip file (RFC 1952, 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What an IDX file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The size of each axis, outermost first; all at least 1.
    pub dims: Vec<usize>,
    /// The bytes, row-major: exactly the product of `dims`.
    pub values: Vec<u8>,
}

/// Why an IDX file could not be read.
#[derive(Debug, Error)]
pub enum IdxError {
    /// There is no such file.
    #[error("{path}: no such file; check the folder, or copy the data set's original file there")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system could not read the file.
    #[error("{path}: cannot be read ({source}); check that it is a file and that you may read it")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is gzipped, and damaged or cut off.
    #[error("{path}: damaged gzip file ({source}); download it again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What the decompressor says.
        source: io::Error,
    },
    /// The file does not start as an IDX file of unsigned bytes with the expected number of axes.
    #[error(
        "{path}: not an IDX file of unsigned bytes with {rank} axes (starts with {found:02x?}, expected [00, 00, 08, \
         {rank:02x}]); check that images and labels are not swapped, or download it again"
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        found: [u8; 4],
        /// The expected number of axes.
        rank: u8,
    },
    /// A size is zero, or all together are more than [`LIMIT`].
    #[error(
        "{path}: sizes {dims:?} cannot be right (each at least 1, at most {LIMIT} bytes in all); download it again"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// The sizes its header claims.
        dims: Vec<u32>,
    },
    /// The file ends too early.
    #[error("{path}: cut off: holds {found} bytes, its header says {expected}; download it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// How many bytes there should be, header included, decompressed.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The file goes on after its last byte.
    #[error("{path}: goes on after the {expected} bytes that its header says; download it again")]
    Trailing {
        /// The file.
        path: PathBuf,
        /// How many bytes there should be, header included, decompressed.
        expected: u64,
    },
}

/// Reads an IDX file of unsigned bytes with `rank` axes, gzipped or plain. Errors: every variant of [`IdxError`].
pub fn read(path: &Path, rank: u8) -> Result<Idx, IdxError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => IdxError::Missing { path: path.into() },
        _ => IdxError::Io { path: path.into(), source },
    })?;
    decode(BufReader::new(file), path, rank)
}

/// Reads IDX data of unsigned bytes with `rank` axes, gzipped or plain, from any source. `path` is only used in errors.
pub fn decode(mut source: impl Read, path: &Path, rank: u8) -> Result<Idx, IdxError> {
    let mut start = Vec::new();
    source.by_ref().take(2).read_to_end(&mut start).map_err(|source| IdxError::Io { path: path.into(), source })?;
    let gzipped = start == GZIP_MAGIC;
    let whole = Cursor::new(start).chain(source);
    if gzipped { body(MultiGzDecoder::new(whole), path, rank) } else { body(whole, path, rank) }
}

/// Header and values from a source of decompressed bytes.
fn body(mut source: impl Read, path: &Path, rank: u8) -> Result<Idx, IdxError> {
    let header_bytes = 4 + 4 * u64::from(rank);
    let header = read_up_to(&mut source, header_bytes, path)?;
    if let Some(&found) = header.first_chunk::<4>()
        && found != [0, 0, 8, rank]
    {
        return Err(IdxError::Magic { path: path.into(), found, rank });
    }
    if (header.len() as u64) < header_bytes {
        return Err(IdxError::Truncated { path: path.into(), expected: header_bytes, found: header.len() as u64 });
    }
    let dims: Vec<u32> =
        header[4..].chunks_exact(4).map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]])).collect();
    let numel = dims.iter().try_fold(1, |product: u64, &size| product.checked_mul(size.into()));
    let numel = match numel {
        Some(numel @ 1..=LIMIT) => numel,
        _ => return Err(IdxError::Size { path: path.into(), dims }),
    };
    // One byte more than the header says: finds trailing bytes, and makes the decompressor verify its checksum.
    let mut values = read_up_to(&mut source, numel + 1, path)?;
    let (expected, found) = (header_bytes + numel, header_bytes + values.len() as u64);
    if found < expected {
        return Err(IdxError::Truncated { path: path.into(), expected, found });
    }
    if found > expected {
        return Err(IdxError::Trailing { path: path.into(), expected });
    }
    values.shrink_to_fit();
    Ok(Idx { dims: dims.into_iter().map(|size| size as usize).collect(), values })
}

/// At most `limit` bytes. Memory grows with what is really there, so a header that lies cannot exhaust it.
fn read_up_to(source: &mut impl Read, limit: u64, path: &Path) -> Result<Vec<u8>, IdxError> {
    let mut bytes = Vec::new();
    match source.take(limit).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // The kinds that the decompressor reports by; a plain source never does.
        Err(source)
            if matches!(source.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            Err(IdxError::Gzip { path: path.into(), source })
        }
        Err(source) => Err(IdxError::Io { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn file(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|size| size.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn parse(bytes: &[u8], rank: u8) -> Result<Idx, IdxError> {
        decode(bytes, Path::new("some.idx"), rank)
    }

    #[test]
    fn plain_and_gzipped_files_hold_the_same() {
        let bytes = file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let plain = parse(&bytes, 2).unwrap();
        assert_eq!(plain, Idx { dims: vec![2, 3], values: vec![1, 2, 3, 4, 5, 6] });
        assert_eq!(parse(&gzip(&bytes), 2).unwrap(), plain);
    }

    #[test]
    fn wrong_magic_is_told_with_the_bytes_found() {
        let swapped = parse(&file(&[2], &[1, 2]), 3);
        assert!(matches!(swapped, Err(IdxError::Magic { found: [0, 0, 8, 1], rank: 3, .. })));
        let floats = parse(&[0, 0, 13, 1, 0, 0, 0, 1, 9], 1);
        assert!(matches!(floats, Err(IdxError::Magic { found: [0, 0, 13, 1], rank: 1, .. })));
        let png = parse(b"\x89PNG\r\n\x1a\n", 1).unwrap_err();
        assert_eq!(
            png.to_string(),
            "some.idx: not an IDX file of unsigned bytes with 1 axes (starts with [89, 50, 4e, 47], expected [00, 00, \
             08, 01]); check that images and labels are not swapped, or download it again"
        );
    }

    #[test]
    fn every_cut_is_truncated_and_an_extra_byte_is_trailing() {
        let bytes = file(&[2, 2], &[1, 2, 3, 4]);
        for cut in 0..bytes.len() {
            let expected = if cut < 12 { 12 } else { 16 };
            match parse(&bytes[..cut], 2) {
                Err(IdxError::Truncated { expected: e, found, .. }) => assert_eq!((e, found), (expected, cut as u64)),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(parse(&longer, 2), Err(IdxError::Trailing { expected: 16, .. })));
        assert!(matches!(parse(&gzip(&longer), 2), Err(IdxError::Trailing { expected: 16, .. })));
        assert!(matches!(parse(&gzip(&bytes[..14]), 2), Err(IdxError::Truncated { expected: 16, found: 14, .. })));
    }

    #[test]
    fn zero_and_absurd_sizes_are_refused() {
        for dims in [&[0, 28, 28][..], &[60_000, 0, 28], &[1 << 20, 1 << 10, 2], &[u32::MAX; 3]] {
            match parse(&file(dims, &[]), 3) {
                Err(IdxError::Size { dims: found, .. }) => assert_eq!(found, dims),
                other => panic!("{dims:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_header_that_claims_much_costs_no_memory() {
        // The largest size allowed, with nothing behind it.
        let found = parse(&file(&[1 << 30], &[]), 1);
        assert!(matches!(found, Err(IdxError::Truncated { found: 8, .. })));
    }

    #[test]
    fn damaged_gzip_is_told_as_such() {
        let good = gzip(&file(&[4, 64], &[7; 256]));
        for cut in 2..good.len() {
            assert!(matches!(parse(&good[..cut], 2), Err(IdxError::Gzip { .. })), "cut at {cut}");
        }
        let mut wrong_checksum = good.clone();
        let at = good.len() - 8;
        wrong_checksum[at] ^= 1;
        assert!(matches!(parse(&wrong_checksum, 2), Err(IdxError::Gzip { .. })));
        let garbage_after = [good.as_slice(), b"garbage"].concat();
        assert!(matches!(parse(&garbage_after, 2), Err(IdxError::Gzip { .. })));
    }

    #[test]
    fn missing_files_and_folders_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(&folder.path().join("none"), 1), Err(IdxError::Missing { .. })));
        assert!(matches!(read(folder.path(), 1), Err(IdxError::Io { .. })));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), rank in 0u8..5) {
            let _ = parse(&bytes, rank);
            let _ = parse(&[&GZIP_MAGIC, bytes.as_slice()].concat(), rank);
            let _ = parse(&gzip(&bytes), rank);
            let with_magic = [&[0, 0, 8, rank], bytes.as_slice()].concat();
            if let Ok(idx) = parse(&with_magic, rank) {
                prop_assert_eq!(idx.dims.iter().product::<usize>(), idx.values.len());
            }
        }

        #[test]
        fn mutated_files_never_panic_and_never_lie(
            n in 1u32..5, m in 1u32..5, at in any::<prop::sample::Index>(), flip in 1u8.., gzipped in any::<bool>()
        ) {
            let values: Vec<u8> = (0..n * m).map(|v| v as u8).collect();
            let plain = file(&[n, m], &values);
            let mut bytes = if gzipped { gzip(&plain) } else { plain.clone() };
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            match parse(&bytes, 2) {
                // The gzip header has bytes that carry no data (time, system); a changed payload must not get through.
                Ok(idx) if gzipped => prop_assert_eq!(idx.values, values),
                Ok(idx) => prop_assert!(at >= 12 && idx.values.len() == values.len()),
                Err(_) if gzipped => {}
                Err(_) => prop_assert!(at < 12),
            }
        }
    }
}
