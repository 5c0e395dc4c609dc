//! Scenarios whose text a fuzzer chose, as `rust/proto/src/tests/fuzz.rs` does for what peers send.

use bolero::check;

use super::Scenario;

#[test]
fn fuzz_scenarios() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(scenario) = Scenario::parse(text) {
            let again = Scenario::parse(&scenario.to_toml());
            assert_eq!(again.as_ref(), Ok(&scenario), "what is read can be written");
        }
    });
}
