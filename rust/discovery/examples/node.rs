//! One node that prints the peers that come, change and go, until Ctrl-C:
//!
//! ```sh
//! cargo run -p iroh-gossip-discovery --example node -- alice fleet
//! cargo run -p iroh-gossip-discovery --example node -- bob fleet igd1…  # if mDNS does not reach
//! ```
//!
//! With `--local` it keeps to this machine's loopback interface. With `--internet` it uses relays.

use futures_util::StreamExt;
use iroh_gossip_discovery::{Bootstrap, Config, Event, NodeBuilder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let (options, words): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let config = match options.first().map(String::as_str) {
        None | Some("--lan") => Config::lan(),
        Some("--local") => Config::local(),
        Some("--internet") => Config::internet(),
        Some(other) => return Err(format!("unknown option {other}").into()),
    };
    let [name, topic, bootstrap @ ..] = words.as_slice() else {
        return Err("usage: node [--local | --lan | --internet] NAME TOPIC [BOOTSTRAP]...".into());
    };
    let bootstrap =
        bootstrap.iter().map(|text| text.parse()).collect::<Result<Vec<Bootstrap>, _>>()?;

    // In a task from here on, so that a signal that comes between two turns of the loop is not
    // lost.
    let mut interrupted = tokio::spawn(tokio::signal::ctrl_c());
    let node = NodeBuilder::new(name, topic).config(config).bootstrap(bootstrap).build().await?;
    println!("id {}", node.swarm.id());
    println!("ticket {}", node.swarm.ticket());
    let (book, mut events) = node.swarm.subscribe();
    for peer in book.iter() {
        println!("known {} {}", peer.id, peer.profile.name);
    }
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::PeerJoined(peer)) => {
                    println!("joined {} {}", peer.id, peer.profile.name);
                }
                Some(Event::PeerUpdated(peer)) => {
                    println!("updated {} {}", peer.id, peer.profile.name);
                }
                Some(Event::PeerLeft(peer)) => println!("left {} {}", peer.id, peer.profile.name),
                Some(Event::PeerLost(peer, reason)) => {
                    println!("lost {} {} {reason:?}", peer.id, peer.profile.name);
                }
                Some(other) => println!("{other:?}"),
                None => break,
            },
            interrupted = &mut interrupted => {
                interrupted??;
                break;
            }
        }
    }
    node.close().await;
    Ok(())
}
