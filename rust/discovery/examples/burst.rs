//! Fills the book of a running node, for `benchmarks/latency.py`: `burst TICKET COUNT`.
//!
//! One link pushes the records of `COUNT` members, each with a key and a signature of its own, and
//! the node verifies every one. The members are in the topic `samples`, and no node answers at
//! their addresses. The link stays open until standard input ends.

use std::error::Error;

use iroh::{Endpoint, EndpointAddr, RelayMode, endpoint::presets};
use iroh_gossip_discovery::{
    ALPN, Ticket,
    proto::{SignedRecord, samples},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [ticket, count] = words.as_slice() else { return Err("usage: burst TICKET COUNT".into()) };
    let ticket: Ticket = ticket.parse()?;
    let records: Vec<SignedRecord> = (0..count.parse()?).map(samples::numbered).collect();

    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await?;
    let id = iroh::EndpointId::from_bytes(ticket.id.as_bytes())?;
    let connection = endpoint.connect(EndpointAddr::from_parts(id, ticket.addresses), ALPN).await?;
    let reading = connection.clone();
    tokio::spawn(async move {
        while let Ok(mut stream) = reading.accept_uni().await {
            tokio::spawn(
                async move { while let Ok(Some(_)) = stream.read(&mut [0; 4096]).await {} },
            );
        }
    });
    let mut control = connection.open_uni().await?;
    control.write_all(&[0]).await?;
    let greeting = samples::all().into_iter().filter(|(name, _)| ["hello", "open"].contains(name));
    let pushes = records.chunks(100).map(samples::push);
    for frame in greeting.map(|(_, frame)| frame).chain(pushes) {
        control.write_all(&u32::try_from(frame.len())?.to_be_bytes()).await?;
        control.write_all(&frame).await?;
    }
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    endpoint.close().await;
    Ok(())
}
