//! How a secret key of 32 bytes is written as text, with a checksum.

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

/// Bytes of a key and of the checksum that follows it in its text.
pub(crate) const KEY: usize = 32;
pub(crate) const CHECKSUM: usize = 4;

/// A kind of keys: what their text starts with, and what their checksum covers besides the key.
pub(crate) struct Form {
    pub(crate) prefix: &'static str,
    pub(crate) label: &'static [u8],
}

/// Returns the text of a key. It is as secret as the key.
pub(crate) fn encode(form: &Form, key: &[u8; KEY]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY + CHECKSUM));
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&checksum(form, key));
    let digits = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
    let mut text = Zeroizing::new(String::with_capacity(form.prefix.len() + digits.len()));
    text.push_str(form.prefix);
    text.extend(digits.chars().map(|digit| digit.to_ascii_lowercase()));
    text
}

/// Returns the key of a text. `None` if the text is none of this form, or the checksum is wrong.
pub(crate) fn decode(form: &Form, text: &str) -> Option<Zeroizing<[u8; KEY]>> {
    let digits = text.strip_prefix(form.prefix)?;
    if digits.chars().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    let digits = Zeroizing::new(digits.to_ascii_uppercase());
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(digits.as_bytes()).ok()?);
    let (key, sum) = bytes.split_first_chunk::<KEY>()?;
    (*sum == checksum(form, key)).then(|| Zeroizing::new(*key))
}

fn checksum(form: &Form, key: &[u8; KEY]) -> [u8; CHECKSUM] {
    let hash = blake3::Hasher::new().update(form.label).update(key).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}
