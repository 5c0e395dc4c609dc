//! Prints one message of each kind: name, tab, hex. `docs/wire.cddl` is tested against them.

use data_encoding::HEXLOWER;
use iroh_gossip_discovery_proto::samples;

fn main() {
    println!("topic-id\t{}", samples::topic());
    for (name, bytes) in samples::all() {
        println!("{name}\t{}", HEXLOWER.encode(&bytes));
    }
}
