//! State files whose content a fuzzer chose.

use super::*;
use super::{
    disk::Disk,
    frames::{MAGIC, append_frame, read_frames},
};

/// A disk on which every file has this content.
#[derive(Debug)]
struct Content(Vec<u8>);

impl Disk for Content {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a file of each kind. Checksums are made right, so that the fuzzer gets past them.
pub(crate) fn fuzz(bytes: &[u8]) {
    book(bytes);
    small_files(bytes.to_vec());
    if let Ok(text) = std::str::from_utf8(bytes) {
        small_files(checked(&format!("{text}\n")).into_bytes());
    }
}

/// The first two bytes say where a file of frames is cut and damaged, the others are in it.
fn book(bytes: &[u8]) {
    let read = read_frames(bytes);
    assert!(read.whole <= bytes.len(), "no more is whole than was read");
    let Some(([cut, by], content)) = bytes.split_first_chunk() else { return };
    let mut file = MAGIC.to_vec();
    let contents: Vec<_> = content.chunks(1 + usize::from(*by)).collect();
    for content in &contents {
        append_frame(&mut file, content);
    }
    let whole = read_frames(&file);
    assert!(!whole.is_damaged && whole.whole == file.len());
    assert_eq!(whole.contents, contents, "what was written is read");
    let at = file.len() * usize::from(*cut) / 256;
    let torn = read_frames(&file[..at]);
    assert!(!torn.is_damaged, "a torn file is not damaged");
    assert_eq!(torn.contents, contents[..torn.contents.len()], "the first frames are read");
    let before = torn.contents.len();
    file[at] ^= by | 1;
    let damaged = read_frames(&file);
    assert!(damaged.contents.len() >= before, "damage costs no frame before it");
}

fn small_files(content: Vec<u8>) {
    let files = Files::new(Path::new("fuzzed"), Arc::new(Content(content)));
    assert!(read_sequence(&files) <= MAX_SEQUENCE);
    let _ = read_endpoint(&files);
    if let Ok(marks) = read_marks(&files) {
        let text = marks_text(&marks);
        let again = verified(text.as_bytes()).and_then(parse_marks);
        assert_eq!(again.as_ref(), Some(&marks), "what is read can be written");
    }
}
