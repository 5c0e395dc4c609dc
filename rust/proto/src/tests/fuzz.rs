//! What arrives from outside, chosen by a fuzzer.
//!
//! `cargo test` replays the inputs that are kept in `__fuzz__`, always the same. `make fuzz` lets
//! libFuzzer look for new ones, guided by the branches that they reach.

mod pair;

use bolero::check;
use bytes::Bytes;

use self::pair::{Pair, Step};
use crate::{
    accusation::Accusation,
    broadcast::Broadcast,
    cbor::Value,
    invitation,
    kept::Entry,
    record::{Envelope, Profile, Readiness},
    request::{Answer, Request},
    samples,
    wire::{Frame, decode_broadcast, decode_content},
};

#[test]
fn fuzz_frames() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        if let Ok(Some(frame)) = Frame::decode(bytes) {
            let again = frame.encode();
            assert_eq!(Frame::decode(&again).unwrap(), Some(frame), "what decodes can be encoded");
        }
    });
}

#[test]
fn fuzz_gossip() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        let _ = decode_content(bytes);
        if let Ok(broadcast) = decode_broadcast(bytes) {
            let _ = Broadcast::open(&broadcast);
        }
    });
}

#[test]
fn fuzz_records() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        // The signature is not checked, so that the fuzzer gets past it.
        if let Ok(signed) = Envelope::open(&bytes).and_then(Envelope::decode) {
            // A later release may know another readiness.
            let profile =
                Profile { readiness: Readiness::Ready, ..signed.record().profile.clone() };
            profile.validate().expect("what decodes is within the limits");
        }
        let _ = Accusation::open(&bytes);
    });
}

#[test]
fn fuzz_requests() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        if let Ok(Some(request)) = Request::decode(bytes) {
            assert_eq!(Request::decode(&request.encode()).unwrap(), Some(request));
        }
        if let Ok(answer) = Answer::decode(bytes) {
            let _ = Answer::decode(&answer.encode()).unwrap();
        }
    });
}

#[test]
fn fuzz_kept_entries() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        if let Ok(entry) = Entry::decode(bytes) {
            let _ = Entry::decode(&entry.encode()).unwrap();
        }
        let _ = Value::decode("input", bytes);
    });
}

#[test]
fn fuzz_invitations() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        invitation::fuzz(&Bytes::copy_from_slice(bytes));
    });
}

/// Two states on one network, whose frames are delivered, changed, repeated or lost, and to which a
/// hostile peer says whatever the samples can say.
#[test]
fn fuzz_two_states() {
    check!().with_iterations(0).with_type::<Vec<Step>>().for_each(|steps| {
        let mut pair = Pair::new(samples::topic());
        for step in steps {
            pair.take(step);
        }
        pair.check();
    });
}
