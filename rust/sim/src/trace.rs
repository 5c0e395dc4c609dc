//! A hash over all that happens, to show that the same seed gives the same run.

/// How many bytes are hashed at once.
const BLOCK: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Hash {
    hasher: blake3::Hasher,
    block: Vec<u8>,
}

impl Hash {
    fn update(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK {
            self.hasher.update(&self.block);
            self.block.clear();
        }
    }

    fn finish(&self) -> [u8; 32] {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.block);
        *hasher.finalize().as_bytes()
    }
}

/// Two hashes: one over everything, and one over everything but the content of frames.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    whole: Hash,
    shape: Hash,
}

impl Trace {
    pub(crate) fn frame(&mut self, at: u64, link: u64, bytes: &[u8]) {
        let mut head = [0; 24];
        head[..8].copy_from_slice(&at.to_le_bytes());
        head[8..16].copy_from_slice(&link.to_le_bytes());
        head[16..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.shape.update(&head);
        self.whole.update(&head);
        self.whole.update(bytes);
    }

    pub(crate) fn whole(&self) -> [u8; 32] {
        self.whole.finish()
    }

    pub(crate) fn shape(&self) -> [u8; 32] {
        self.shape.finish()
    }
}
