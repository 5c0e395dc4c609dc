//! Records verify, keep what they do not know, and are refused outside their limits.

use std::collections::BTreeMap;

use bytes::Bytes;
use ed25519_dalek::Signer;
use proptest::prelude::*;

use super::*;
use crate::{Error, MAX_ADDRESSES, MAX_RECORD, Readiness, cbor::Value, choose_addresses, samples};

#[test]
fn a_signed_record_verifies_and_comes_back_whole() {
    let signed = samples::record(3, Status::Alive);
    let back = SignedRecord::verify(&samples::topic(), signed.bytes()).unwrap();
    assert_eq!(back.record(), signed.record());
    assert_eq!(back.bytes(), signed.bytes());
}

#[test]
fn a_record_is_bound_to_its_topic() {
    let signed = samples::record(3, Status::Alive);
    let other = TopicId::from_name("other").unwrap();
    assert_eq!(SignedRecord::verify(&other, signed.bytes()), Err(Error::Forged));
}

#[test]
fn no_altered_byte_passes() {
    let signed = samples::record(3, Status::Alive);
    for at in 0..signed.bytes().len() {
        for bit in 0..8 {
            let mut bytes = signed.bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let outcome = SignedRecord::verify(&samples::topic(), &bytes.into());
            assert!(outcome.is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn another_key_cannot_sign_for_an_id() {
    let mut record = node(3, 1);
    record.id = id(4);
    let (protected, payload) = parts(&sign(record));
    let forged = seal(&key(3), &protected, &payload);
    assert_eq!(SignedRecord::verify(&topic(), &forged), Err(Error::Forged));
}

/// A record with keys that this version does not know.
pub(super) fn of_a_later_version(number: u8, sequence: u64) -> Bytes {
    let (protected, payload) = parts(&signed(number, sequence));
    let mut entries = Value::decode("payload", &payload).unwrap().into_map("payload").unwrap();
    entries.push((Value::uint(99_u64), Value::text("of a later version")));
    entries.push((Value::text("x"), Value::array([Value::uint(1_u64)])));
    seal(&key(number), &protected, &Value::map(entries).encode())
}

#[test]
fn unknown_keys_are_accepted_and_kept_byte_for_byte() {
    let bytes = of_a_later_version(3, 5);
    let signed = SignedRecord::verify(&topic(), &bytes).unwrap();
    assert_eq!(signed.bytes(), &bytes);
    assert_eq!(signed.record().sequence, 5);
}

#[test]
fn payloads_outside_their_limits_are_refused_though_signed() {
    let (protected, payload) = parts(&signed(3, 5));
    let with = |key: i64, value: Value| {
        let mut entries: BTreeMap<i128, Value> = Value::decode("payload", &payload)
            .unwrap()
            .into_map("payload")
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key.as_int().unwrap(), value))
            .collect();
        entries.insert(key.into(), value);
        let entries = entries.into_iter().map(|(k, v)| (Value::int(i64::try_from(k).unwrap()), v));
        let payload = Value::map(entries).encode();
        let bytes = seal(&super::key(3), &protected, &payload);
        SignedRecord::verify(&topic(), &bytes).expect_err("must be refused").to_string()
    };
    assert!(with(0, Value::uint(1_u64 << 62)).contains("2^62"));
    assert!(with(2, Value::text("")).contains("name"));
    assert!(with(2, Value::text(&"x".repeat(65))).contains("64"));
    assert!(with(2, Value::text("a\u{202e}b")).contains("direction"));
    assert!(with(2, Value::text("e\u{301}")).contains("normalization"));
    assert!(with(2, Value::text(" \u{200b}\u{a0}")).contains("visible"));
    assert!(with(5, Value::uint(7_u64)).contains("status"));
    assert!(with(6, Value::uint(0_u64)).contains("expiration"));
    let address = || Value::array([Value::bytes(&[1, 2, 3, 4]), Value::uint(5_u64)]);
    assert!(with(3, Value::array((0..9).map(|_| address()))).contains("addresses"));
    let pair = (Value::text("k"), Value::text(&"v".repeat(1024)));
    assert!(with(4, Value::map([pair])).contains("metadata"));
    let at = |ip: &[u8], port: u16| {
        with(3, Value::array([Value::array([Value::bytes(ip), Value::uint(port)])]))
    };
    assert!(at(&[1, 2, 3, 4], 0).contains("port 0"));
    assert!(at(&[224, 0, 0, 251], 5353).contains("multicast"));
    assert!(at(&[0; 16], 1).contains("no address of a host"));
    let relay = |url: &str| with(3, Value::array([Value::text(url)]));
    assert!(relay("file:///etc/passwd").contains("neither http nor https"));
    assert!(relay("https://a:secret@relay.example/").contains("password"));
}

#[test]
fn a_name_without_a_visible_character_is_refused() {
    let check = |name: &str| Profile::new(name).validate();
    for blank in [
        " ",
        "\u{3000}",
        "\u{200b}",
        "\u{200d}\u{2060}",
        "\u{ad}",
        "\u{3164}",
        "\u{2800}",
        "\u{301}",
        "\u{fe0f}",
        "\u{e0020}",
        "\u{115f} ",
    ] {
        let error = check(blank).unwrap_err().to_string();
        assert!(error.starts_with("name must have a visible character"), "{blank:?}: {error}");
    }
    for name in ["a", " a ", "一", "👩\u{200d}🔧", "क\u{94d}\u{200d}ष"] {
        check(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn addresses_that_can_be_no_peers_are_neither_signed_nor_chosen() {
    let ip = |text: &str| TransportAddr::Ip(text.parse().unwrap());
    let relay = |text: &str| TransportAddr::Relay(text.parse().unwrap());
    let never = [
        ip("10.0.0.1:0"),
        ip("0.0.0.0:1"),
        ip("[::]:1"),
        ip("255.255.255.255:9"),
        ip("224.0.0.251:5353"),
        ip("[ff02::fb]:5353"),
        ip("[::ffff:224.0.0.1]:1"),
        ip("[::ffff:0.0.0.0]:1"),
        relay("ftp://relay.example/"),
        relay("file:///etc/passwd"),
        relay("https://user@relay.example/"),
        relay("https://:secret@relay.example/"),
    ];
    for address in &never {
        let mut record = node(3, 1);
        record.addresses = vec![address.clone()];
        let error = SignedRecord::sign(&key(3), &topic(), record).unwrap_err().to_string();
        assert!(error.starts_with("addresses has"), "{address}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(choose_addresses(&never), (Vec::new(), never.len()));
    let good = [ip("10.0.0.1:1"), ip("[fd00::1]:1"), relay("http://relay.example:3340/")];
    assert_eq!(choose_addresses(&good).0.len(), good.len());
}

#[test]
fn limits_of_a_profile_are_errors_that_name_the_field() {
    let good = || Profile::new("a");
    let reason = |profile: Profile| profile.validate().expect_err("must be refused").to_string();
    assert!(
        reason(Profile { name: String::new(), ..good() }).starts_with("name must not be empty")
    );
    assert!(
        reason(Profile { name: "ä".repeat(33), ..good() }).contains("66 bytes, the limit is 64")
    );
    assert!(reason(Profile { name: "a\nb".into(), ..good() }).contains("U+000A"));
    let metadata = [("k".to_owned(), "v".repeat(1024))].into();
    assert!(reason(Profile { metadata, ..good() }).starts_with("metadata is 1030 bytes"));
    let protocols = vec![vec![b'p'; 33]];
    assert!(reason(Profile { protocols, ..good() }).starts_with("protocols has an entry of 33"));
    let protocols = vec![b"p".to_vec(); 9];
    assert!(reason(Profile { protocols, ..good() }).starts_with("protocols has 9 entries"));
    good().validate().unwrap();
}

#[test]
fn with_too_many_addresses_the_first_usable_are_chosen_and_the_rest_counted() {
    let ip = |text: &str| TransportAddr::Ip(text.parse().unwrap());
    let relay = TransportAddr::Relay("https://relay.example/".parse().unwrap());
    let mut all = vec![ip("0.0.0.0:7"), ip("203.0.113.5:0"), ip("[fe80::1]:7"), ip("224.0.0.1:7")];
    all.extend([ip("203.0.113.5:7"), relay.clone(), ip("203.0.113.5:7")]);
    all.extend((1..=9).map(|n| ip(&format!("10.0.0.{n}:7"))));
    let (chosen, left_out) = choose_addresses(&all);
    let mut wanted = vec![ip("203.0.113.5:7"), relay];
    wanted.extend((1..=6).map(|n| ip(&format!("10.0.0.{n}:7"))));
    assert_eq!(chosen, wanted);
    assert_eq!(left_out, all.len() - MAX_ADDRESSES);
}

#[test]
fn readiness_is_left_out_if_ready_and_what_is_not_known_is_not_ready() {
    let mut record = node(3, 5);
    let ready = sign(record.clone());
    let read = |value: Option<Value>| {
        let (protected, payload) = parts(&ready);
        let mut entries = Value::decode("payload", &payload).unwrap().into_map("payload").unwrap();
        entries.extend(value.map(|value| (Value::uint(8_u64), value)));
        let bytes = seal(&key(3), &protected, &Value::map(entries).encode());
        let record = SignedRecord::verify(&topic(), &bytes).unwrap().record().clone();
        assert_eq!(record.is_ready(), record.profile.readiness == Readiness::Ready);
        record.profile.readiness
    };
    assert_eq!(read(None), Readiness::Ready);
    assert_eq!(read(Some(Value::uint(0_u64))), Readiness::Ready);
    assert_eq!(read(Some(Value::uint(1_u64))), Readiness::Draining);
    assert_eq!(read(Some(Value::uint(2_u64))), Readiness::Critical);
    assert_eq!(read(Some(Value::uint(3_u64))), Readiness::Unknown);
    assert_eq!(read(Some(Value::text("later"))), Readiness::Unknown);
    record.profile.readiness = Readiness::Unknown;
    let error = SignedRecord::sign(&key(3), &topic(), record).unwrap_err().to_string();
    assert!(error.starts_with("readiness must be"), "{error}");
    for known in [Readiness::Ready, Readiness::Draining, Readiness::Critical] {
        assert_eq!(known.as_str().parse(), Ok(known));
    }
    assert!("unknown".parse::<Readiness>().is_err());
}

#[test]
fn the_largest_record_is_an_error_and_not_cut() {
    let mut record = node(3, 1);
    record.profile.metadata = [("k".to_owned(), "v".repeat(1000))].into();
    record.profile.protocols = (0..8).map(|n| vec![n; 32]).collect();
    let url = format!("https://{}.example/", "r".repeat(100));
    record.addresses =
        (0..8).map(|n| TransportAddr::Relay(format!("{url}{n}").parse().unwrap())).collect();
    let error = SignedRecord::sign(&key(3), &topic(), record).unwrap_err().to_string();
    assert!(error.starts_with("record is") && error.contains(&MAX_RECORD.to_string()), "{error}");
}

fn parts(signed: &SignedRecord) -> (Vec<u8>, Vec<u8>) {
    let mut fields = Value::decode("record", signed.bytes()).unwrap().into_array("record").unwrap();
    let protected = fields.take().unwrap().into_bytes("protected").unwrap();
    fields.take().unwrap();
    (protected, fields.take().unwrap().into_bytes("payload").unwrap())
}

/// Makes a `COSE_Sign1` over any header and payload.
fn seal(key: &SigningKey, protected: &[u8], payload: &[u8]) -> Bytes {
    let mut external = b"iroh-gossip-discovery/node/1".to_vec();
    external.extend_from_slice(topic().as_bytes());
    let signed = [
        Value::text("Signature1"),
        Value::bytes(protected),
        Value::bytes(&external),
        Value::bytes(payload),
    ];
    let signature = key.sign(&Value::array(signed).encode()).to_bytes();
    let fields =
        [Value::bytes(protected), Value::map([]), Value::bytes(payload), Value::bytes(&signature)];
    Value::array(fields).encode().into()
}

prop_compose! {
    fn any_record()(
        sequence in 0..crate::MAX_SEQUENCE,
        boot_id: u64,
        name in "[a-zA-Z0-9 äöüß漢]{1,16}",
        metadata in prop::collection::btree_map("\\PC{0,8}", "\\PC{0,24}", 0..6),
        ports in prop::collection::vec(1_u16.., 0..8),
        protocols in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..32), 0..8),
        left: bool,
        readiness in prop::sample::select(vec![
            Readiness::Ready,
            Readiness::Draining,
            Readiness::Critical,
        ]),
        expiration in crate::EXPIRATION_SECONDS,
    ) -> NodeRecord {
        let ip = |port| TransportAddr::Ip(std::net::SocketAddr::from(([192, 0, 2, 1], port)));
        NodeRecord {
            id: id(3),
            sequence,
            boot_id,
            profile: Profile { name, metadata, protocols, readiness },
            addresses: ports.into_iter().map(ip).collect(),
            status: if left { Status::Left } else { Status::Alive },
            expiration: Duration::from_secs(expiration.into()),
        }
    }
}

proptest! {
    #[test]
    fn any_record_makes_the_round_trip(record in any_record()) {
        prop_assume!(record.profile.validate().is_ok());
        let signed = sign(record.clone());
        let back = SignedRecord::verify(&topic(), signed.bytes()).unwrap();
        prop_assert_eq!(&**back.record(), &record);
    }

    #[test]
    fn no_mutation_passes(record in any_record(), at: prop::sample::Index, byte: u8, cut: bool) {
        prop_assume!(record.profile.validate().is_ok());
        let signed = sign(record);
        let mut bytes = signed.bytes().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        prop_assume!(bytes != *signed.bytes());
        prop_assert!(SignedRecord::verify(&topic(), &bytes.into()).is_err());
    }
}
