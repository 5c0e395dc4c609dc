//! Frames survive encoding, and anything else is refused.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    cbor::Value,
    samples,
    wire::{
        MAX_TTL, OverlayFrame, Range, RangeContent, SyncFrame, Turn, decode_content,
        limits::MAX_ROUND,
    },
};

/// Returns true if a sample is a frame of a link's lanes.
fn is_frame(name: &str) -> bool {
    let of_issuer = matches!(name, "invitation" | "revocation");
    let signed = name.starts_with("record-") || name == "accusation" || of_issuer;
    let request = name.starts_with("request-") || name == "answer";
    !(signed || request || name == "content" || name.starts_with("broadcast"))
}

#[test]
fn every_sample_makes_the_round_trip() {
    for (name, bytes) in samples::all() {
        if !is_frame(name) {
            continue;
        }
        let frame = Frame::decode(&bytes).unwrap().unwrap();
        assert_eq!(frame.encode(), bytes, "{name}");
    }
}

#[test]
fn items_of_a_later_version_are_ignored() {
    for (name, bytes) in samples::all() {
        if !is_frame(name) || name == "hello" {
            continue;
        }
        let items = Value::decode("frame", &bytes).unwrap().into_array("frame").unwrap();
        let mut items: Vec<_> = items.list(100).unwrap().collect();
        items.push(Value::text("later"));
        let longer = Value::array(items).encode();
        assert_eq!(Frame::decode(&longer).unwrap(), Frame::decode(&bytes).unwrap(), "{name}");
    }
    let later = Value::array([Value::uint(77_u64), Value::uint(0_u64)]).encode();
    assert_eq!(Frame::decode(&later).unwrap(), None);
}

#[test]
fn a_hello_with_unknown_keys_is_understood() {
    let pairs = [(0, 1), (1, 9), (2, 5), (3, 0), (70, 1)];
    let map = Value::map(pairs.map(|(k, v): (u64, u64)| (Value::uint(k), Value::uint(v))));
    let bytes = Value::array([Value::uint(0_u64), map, Value::uint(1_u64)]).encode();
    let Some(Frame::Hello(hello)) = Frame::decode(&bytes).unwrap() else { panic!("not a hello") };
    assert_eq!((hello.boot_id, hello.common_version()), (5, Some(1)));
    let future = Hello { min_version: 2, max_version: 9, boot_id: 5, features: 0 };
    assert_eq!(future.common_version(), None);
}

#[test]
fn hops_are_clamped() {
    let record = signed(3, 1).bytes().clone();
    let ttl = Value::array([
        Value::uint(4_u64),
        Value::uint(0_u64),
        Value::uint(65_535_u64),
        Value::bytes(&record),
    ]);
    let Some(Frame::Topic(0, TopicFrame::Overlay(OverlayFrame::ForwardJoin { ttl, .. }))) =
        Frame::decode(&ttl.encode()).unwrap()
    else {
        panic!("not a forward join")
    };
    assert_eq!(ttl, MAX_TTL);
    let round = Value::array([
        Value::uint(9_u64),
        Value::uint(0_u64),
        Value::null(),
        Value::uint(65_535_u64),
    ]);
    let Some(Frame::Topic(0, TopicFrame::Overlay(OverlayFrame::Graft { round, .. }))) =
        Frame::decode(&round.encode()).unwrap()
    else {
        panic!("not a graft")
    };
    assert_eq!(round, MAX_ROUND);
}

#[test]
fn lists_over_their_limit_are_refused() {
    let pair = || Value::array([Value::bytes(&[1; 32]), Value::uint(0_u64)]);
    let many = Value::array((0..257).map(|_| pair()));
    let bytes = Value::array([Value::uint(10_u64), Value::uint(0_u64), many]).encode();
    assert!(Frame::decode(&bytes).unwrap_err().to_string().contains("the limit is 256"));
    let huge = Bytes::from(vec![0; crate::MAX_FRAME + 1]);
    assert!(Frame::decode(&huge).unwrap_err().to_string().contains("the limit is 65536"));
}

#[test]
fn ranges_must_cover_the_ids_once() {
    let sync = |ranges| {
        let frame = SyncFrame {
            session: 1,
            from_initiator: true,
            attached: true,
            turn: Turn::Yours,
            ranges,
            entries: vec![],
            wants: vec![],
            observer: false,
        };
        Frame::decode(&Frame::Topic(0, TopicFrame::Sync(frame)).encode())
    };
    let range = |end: Option<u8>| Range {
        end: end.map(|byte| EndpointId::from_bytes([byte; 32])),
        what: RangeContent::Skip,
    };
    sync(vec![range(Some(1)), range(Some(2)), range(None)]).unwrap();
    sync(vec![range(Some(2)), range(Some(2))]).unwrap_err();
    sync(vec![range(Some(3)), range(Some(2))]).unwrap_err();
    sync(vec![range(None), range(Some(2))]).unwrap_err();
    sync(vec![range(None), range(None)]).unwrap_err();
}

#[test]
fn content_of_an_unknown_kind_cannot_be_judged() {
    let content = Value::array([Value::array([Value::uint(5_u64), Value::bytes(b"x")])]).encode();
    assert!(decode_content(&content).unwrap_err().to_string().contains("kind 5"));
}

fn any_sample() -> impl Strategy<Value = Bytes> {
    prop::sample::select(samples::all()).prop_map(|(_, bytes)| bytes)
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(&bytes);
        let _ = decode_content(&bytes);
    }

    #[test]
    fn no_mutation_of_a_frame_makes_it_panic(
        sample in any_sample(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = sample.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Some(frame)) = Frame::decode(&bytes) {
            // What decodes can be encoded again.
            let again = frame.encode();
            prop_assert_eq!(Frame::decode(&again).unwrap(), Some(frame));
        }
    }
}
