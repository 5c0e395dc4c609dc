//! Invitations and revocations hold for one issuer, one topic, one id and a time, and for nothing
//! else.

use super::*;
use crate::{
    CLOCK_TOLERANCE, Error, Invitation, MAX_INVITATION, MAX_INVITED, Revocation, cbor::Value, cose,
};

const ISSUER: u8 = 9;
const DAY: u64 = 86_400;
const NOW: u64 = 1_800_000_000;

fn invitation() -> Invitation {
    Invitation::sign(&key(ISSUER), topic(), id(PEER), (NOW, NOW + DAY)).unwrap()
}

fn revocation() -> Revocation {
    Revocation::sign(&key(ISSUER), topic(), id(PEER), (NOW, NOW + DAY)).unwrap()
}

fn reason<T>(result: Result<T, Error>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn what_was_signed_is_read_again_from_bytes_and_from_text() {
    let (signed, revoked) = (invitation(), revocation());
    assert_eq!((signed.issuer, signed.topic, signed.member), (id(ISSUER), topic(), id(PEER)));
    assert_eq!((signed.begins, signed.ends), (NOW, NOW + DAY));
    assert_eq!(Invitation::verify(signed.bytes()).unwrap(), signed);
    assert_eq!(signed.to_string().parse::<Invitation>().unwrap(), signed);
    assert_eq!(format!(" {revoked}\n").parse::<Revocation>().unwrap(), revoked);
    assert!(signed.to_string().starts_with("igdi1") && revoked.to_string().starts_with("igdr1"));
    let ends = u64::from(u32::MAX) + MAX_INVITED;
    let long = (u64::from(u32::MAX), ends);
    let longest = Invitation::sign(&key(ISSUER), topic(), id(PEER), long).unwrap();
    assert!(longest.bytes().len() <= 211 && 211 <= MAX_INVITATION, "{}", longest.bytes().len());
}

#[test]
fn an_invitation_holds_up_to_its_end_and_clocks_may_differ_by_the_tolerance() {
    let signed = invitation();
    assert!(!signed.is_over(NOW + DAY + CLOCK_TOLERANCE - 1), "a clock may be late");
    assert!(signed.is_over(NOW + DAY + CLOCK_TOLERANCE));
    assert!(!signed.is_early(NOW - CLOCK_TOLERANCE), "a clock may be early");
    assert!(signed.is_early(NOW - CLOCK_TOLERANCE - 1));
    let revoked = revocation();
    assert!(!revoked.is_over(NOW + DAY + CLOCK_TOLERANCE - 1), "it outlives the invitation");
    assert!(revoked.is_over(NOW + DAY + CLOCK_TOLERANCE));
}

#[test]
fn an_altered_one_and_one_of_another_kind_are_refused() {
    let signed = invitation();
    assert!(Revocation::verify(signed.bytes()).is_err());
    assert!(Invitation::verify(revocation().bytes()).is_err());
    for bit in 0..8 * signed.bytes().len() {
        let mut altered = signed.bytes().to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(Invitation::verify(&altered.into()).is_err(), "bit {bit}");
    }
    for length in 0..signed.bytes().len() {
        assert!(Invitation::verify(&signed.bytes().slice(..length)).is_err());
    }
}

#[test]
fn a_signature_of_another_topic_does_not_hold() {
    let signed_for = |signed: TopicId| {
        let (named, member) = (topic(), id(PEER));
        let payload = Value::map([
            (Value::int(0), Value::bytes(named.as_bytes())),
            (Value::int(1), Value::bytes(member.as_bytes())),
            (Value::int(2), Value::uint(NOW)),
            (Value::int(3), Value::uint(NOW + DAY)),
        ]);
        let label = "iroh-gossip-discovery/invitation/1";
        Invitation::verify(&cose::sign(&key(ISSUER), label, &signed, &payload.encode()))
    };
    assert!(signed_for(topic()).is_ok());
    assert_eq!(signed_for(TopicId::from_name("another").unwrap()), Err(Error::Forged));
}

#[test]
fn the_end_is_after_the_beginning_and_within_366_days() {
    let sign = |times| Invitation::sign(&key(ISSUER), topic(), id(PEER), times);
    assert_eq!(reason(sign((NOW, NOW))), "ends must be after the beginning");
    let within = "ends must be within 366 days of the beginning";
    assert_eq!(reason(sign((NOW, NOW + MAX_INVITED + 1))), within);
    assert!(sign((NOW, NOW + MAX_INVITED)).is_ok());
}

#[test]
fn a_text_that_is_none_is_one_clear_error() {
    let text = invitation().to_string();
    let parse = |text: &str| reason(text.parse::<Invitation>());
    assert_eq!(parse("igd1abc"), "invitation does not start with \"igdi1\"");
    assert_eq!(parse(&revocation().to_string()), "invitation does not start with \"igdi1\"");
    let upper = "invitation has 'A' at character 6, which is not one of a-z and 2-7";
    assert_eq!(parse("igdi1A"), upper);
    assert!(parse(&"igdi1".repeat(200)).contains("characters, the limit is 825"));
    for place in 5..text.len() {
        let mut typed = text.clone();
        typed.replace_range(place..=place, if &text[place..=place] == "a" { "b" } else { "a" });
        let error = parse(&typed);
        assert!(error.starts_with("invitation ") && error.contains("mistyped"), "{place}: {error}");
        let error = parse(&text[..place]);
        assert!(error.starts_with("invitation "), "{place}: {error}");
    }
}
