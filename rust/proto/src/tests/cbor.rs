//! Only deterministic CBOR within the limits is decoded.

use proptest::prelude::*;

use crate::cbor::Value;

fn refused(bytes: &[u8]) -> String {
    Value::decode("test", bytes).expect_err("must be refused").to_string()
}

#[test]
fn only_deterministic_encodings_are_taken() {
    for (bytes, reason) in [
        (&[0x18, 23][..], "shortest"),
        (&[0x19, 0, 200], "shortest"),
        (&[0x58, 1, 0], "shortest"),
        (&[0x9f, 0xff], "indefinite"),
        (&[0x5f, 0x41, 0, 0xff], "indefinite"),
        (&[0xa2, 1, 0, 0, 0], "sorted"),
        (&[0xa2, 0, 0, 0, 0], "sorted"),
        (&[0xa2, 0x61, b'b', 0, 0x61, b'a', 0], "sorted"),
        (&[0xc0, 0], "tag"),
        (&[0xf9, 0, 0], "float"),
        (&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], "float"),
        (&[0xf7 + 1, 32], "simple"),
        (&[0x61, 0xff], "UTF-8"),
        (&[0x00, 0x00], "trailing"),
        (&[0x42, 0], "beyond the end"),
        (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "beyond the end"),
        (&[0x1c], "reserved"),
        (&[], "beyond the end"),
        (&[0x81, 0x81, 0x81, 0x81, 0x81, 0], "deeply"),
    ] {
        let error = refused(bytes);
        assert!(error.contains(reason), "{bytes:02x?}: {error}, not {reason}");
    }
}

#[test]
fn a_bomb_of_tiny_items_is_refused() {
    let mut bytes = vec![0x99, 0x40, 0];
    bytes.extend(std::iter::repeat_n(0, 0x4000));
    assert!(refused(&bytes).contains("too many items"));
}

#[test]
fn the_densest_metadata_is_taken() {
    let keys =
        (b'!'..=b'~').map(|byte| (Value::text(&char::from(byte).to_string()), Value::text("")));
    let bytes = Value::map(keys).encode();
    Value::decode("test", &bytes).unwrap();
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Value::decode("test", &bytes);
    }

    #[test]
    fn what_is_taken_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(value) = Value::decode("test", &bytes) {
            prop_assert_eq!(value.encode(), bytes);
        }
    }
}

#[test]
fn an_encoding_takes_the_room_that_was_made_for_it() {
    let edges = [0_u64, 1, 23, 24, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
    let lengths = [0, 1, 23, 24, 255, 256, 65_535, 65_536];
    let negative = [-1, -24, -25, -256, -257, -65_536, -65_537, i64::MIN];
    let pairs = |n: u64| (0..n).map(|i| (Value::uint(i), Value::null()));
    let values = edges
        .map(Value::uint)
        .into_iter()
        .chain(negative.map(Value::int))
        .chain([Value::null(), Value::bool(true)])
        .chain(lengths.map(|n| Value::bytes(&vec![7; n])))
        .chain(lengths.map(|n| Value::text(&"a".repeat(n))))
        .chain(lengths.map(|n| Value::array((0..n).map(|_| Value::bool(false)))))
        .chain([0, 23, 24, 300].map(|n| Value::map(pairs(n))));
    for value in values {
        let bytes = value.encode();
        assert_eq!(bytes.len(), bytes.capacity(), "{:02x?}", &bytes[..bytes.len().min(9)]);
    }
}
