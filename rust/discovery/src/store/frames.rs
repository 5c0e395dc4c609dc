//! Frames, each with a checksum that shows if it was torn while it was written, or altered later.
//!
//! A file begins with [`MAGIC`]. A frame is the length of its content (4 bytes, big-endian), the
//! first 8 bytes of the SHA-256 of its content, and its content.

use sha2::{Digest, Sha256};

/// The beginning of a file of frames. The number is the version of the format.
pub(crate) const MAGIC: &[u8] = b"igd-book 1\n";
/// The longest content of a frame, in bytes. An entry has a record of at most 2 KiB.
const MAX_CONTENT: usize = 4096;
const HEAD: usize = 12;

/// What is in a file of frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames<'a> {
    /// The content of each whole frame, in order.
    pub(crate) contents: Vec<&'a [u8]>,
    /// The file is whole up to this length, in bytes.
    pub(crate) whole: usize,
    /// True if whole frames follow one that is not whole, which a torn write does not explain.
    pub(crate) is_damaged: bool,
}

pub(crate) fn append_frame(file: &mut Vec<u8>, content: &[u8]) {
    debug_assert!(content.len() <= MAX_CONTENT, "an entry is bounded");
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    file.extend_from_slice(&length.to_be_bytes());
    file.extend_from_slice(&checksum(content));
    file.extend_from_slice(content);
}

/// Reads all whole frames, even those behind damage.
pub(crate) fn read_frames(file: &[u8]) -> Frames<'_> {
    let mut frames = Frames::default();
    let Some(mut rest) = file.strip_prefix(MAGIC) else {
        // A file that was torn within its beginning is not damaged.
        frames.is_damaged = !MAGIC.starts_with(file);
        rest_of(&mut frames, file);
        return frames;
    };
    while let Some((content, after)) = first_frame(rest) {
        frames.contents.push(content);
        rest = after;
    }
    frames.whole = file.len() - rest.len();
    rest_of(&mut frames, rest);
    frames
}

/// Reads the whole frames behind a place that is not whole.
fn rest_of<'a>(frames: &mut Frames<'a>, mut rest: &'a [u8]) {
    while !rest.is_empty() {
        if let Some((content, after)) = first_frame(rest) {
            frames.contents.push(content);
            frames.is_damaged = true;
            rest = after;
        } else {
            rest = &rest[1..];
        }
    }
}

fn first_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    if length > MAX_CONTENT {
        return None;
    }
    let content = bytes.get(HEAD..HEAD + length)?;
    let is_whole = bytes[4..HEAD] == checksum(content);
    is_whole.then_some((content, &bytes[HEAD + length..]))
}

fn checksum(content: &[u8]) -> [u8; 8] {
    let hash = Sha256::digest(content);
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        for content in [&b"one"[..], b"", &[7; 2000], b"four"] {
            append_frame(&mut file, content);
        }
        file
    }

    #[test]
    fn frames_survive_and_a_torn_one_is_no_damage() {
        let file = file();
        let frames = read_frames(&file);
        assert_eq!(frames.contents, [&b"one"[..], b"", &[7; 2000], b"four"]);
        assert_eq!((frames.whole, frames.is_damaged), (file.len(), false));
        for end in 0..file.len() {
            let frames = read_frames(&file[..end]);
            assert!(!frames.is_damaged && frames.whole <= end, "{end}");
        }
    }

    #[test]
    fn damage_costs_the_frame_that_it_hits() {
        let file = file();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            let frames = read_frames(&damaged);
            assert!(frames.contents.len() >= 3, "{at}");
            let last = at >= file.len() - HEAD - 4;
            assert_eq!(frames.is_damaged, !last, "{at}");
        }
    }
}
