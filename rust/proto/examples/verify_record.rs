//! Verifies records of another implementation: lines of `topic-hex record-hex` on standard input,
//! for each a line `ok id sequence name` or `error reason`.

use std::io::{self, BufRead, Write};

use data_encoding::HEXLOWER;
use iroh_gossip_discovery_proto::{SignedRecord, TopicId};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        match verify(&line?) {
            Ok(signed) => {
                let record = signed.record();
                writeln!(out, "ok {} {} {}", record.id, record.sequence, record.profile.name)?;
            }
            Err(reason) => writeln!(out, "error {reason}")?,
        }
        out.flush()?;
    }
    Ok(())
}

fn verify(line: &str) -> Result<SignedRecord, String> {
    let (topic, record) = line.split_once(' ').ok_or("two fields are needed")?;
    let decode = |hex: &str| HEXLOWER.decode(hex.trim().as_bytes()).map_err(|e| e.to_string());
    let topic: [u8; 32] = decode(topic)?.try_into().map_err(|_| "a topic id is 32 bytes")?;
    let record = decode(record)?.into();
    SignedRecord::verify(&TopicId::from_bytes(topic), &record).map_err(|e| e.to_string())
}
