//! What a user or a disk brings, chosen by a fuzzer. `rust/proto/src/tests/fuzz.rs` does so for
//! what peers send, and says how.

use bolero::check;

use crate::{store, ticket};

#[test]
fn fuzz_tickets() {
    check!().with_iterations(0).for_each(ticket::fuzz);
}

#[test]
fn fuzz_state_files() {
    check!().with_iterations(0).for_each(store::fuzz);
}
