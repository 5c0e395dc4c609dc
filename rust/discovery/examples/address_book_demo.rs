//! Shows an address book that fills. Start it in three terminals:
//!
//! ```sh
//! cargo run --example address_book_demo alice
//! cargo run --example address_book_demo bob <alice's ticket or id>
//! cargo run --example address_book_demo charlie <alice's or bob's ticket or id>
//! ```
//!
//! In one local network an id is enough as an argument, or none at all, because mDNS finds the
//! others. Ctrl-C leaves. With `--local` a node keeps to this machine's loopback interface, where
//! only tickets work.

use std::error::Error;

use futures_util::StreamExt;
use iroh_gossip_discovery::{Bootstrap, Config, Event, GossipDiscoveryBuilder, Swarm};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let (options, words): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let config = match options.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Config::lan(),
        ["--local"] => Config::local(),
        other => return Err(format!("unknown options {}", other.join(" ")).into()),
    };
    let [name, peers @ ..] = words.as_slice() else {
        return Err("usage: address_book_demo [--local] NAME [TICKET-OR-ID]...".into());
    };
    let peers = peers.iter().map(|text| text.parse()).collect::<Result<Vec<Bootstrap>, _>>()?;

    // In a task from here on, so that a signal that comes between two turns of the loop is not
    // lost.
    let mut interrupted = tokio::spawn(tokio::signal::ctrl_c());
    let node = GossipDiscoveryBuilder::new(name, "address-book-demo")
        .config(config)
        .bootstrap(peers)
        .build()
        .await?;
    println!("I am {name}.");
    println!("id:     {}", node.swarm.id());
    println!("ticket: {}", node.swarm.ticket());
    println!("Start another node with one of them; Ctrl-C leaves.");

    let (_, mut changes) = node.swarm.clone().split();
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(change) => {
                    println!("\n{}", describe(&change));
                    show(&node.swarm);
                }
                None => break,
            },
            interrupted = &mut interrupted => {
                interrupted??;
                break;
            }
        }
    }
    node.close().await;
    println!("\n{name} has left.");
    Ok(())
}

fn describe(change: &Event) -> String {
    match change {
        Event::PeerJoined(peer) => format!("+ {} joined", peer.profile.name),
        Event::PeerUpdated(peer) => format!("~ {} changed", peer.profile.name),
        Event::PeerLeft(peer) => format!("- {} left", peer.profile.name),
        Event::PeerSuspected(peer) => format!("? {} does not answer", peer.profile.name),
        Event::PeerRecovered(peer) => format!("! {} answers again", peer.profile.name),
        Event::PeerLost(peer, reason) => format!("- {} is lost ({reason:?})", peer.profile.name),
        Event::Isolated => "! no link to anyone is left".into(),
        Event::Reconnected => "! linked again".into(),
        other => format!("! {other:?}"),
    }
}

fn show(swarm: &Swarm) {
    let book = swarm.book();
    println!("  address book: {} other node(s)", book.len());
    for peer in book.iter() {
        let addresses: Vec<_> = peer.addresses.iter().map(|address| format!("{address}")).collect();
        println!("  {:12} {}  {}", peer.profile.name, peer.id.fmt_short(), addresses.join(" "));
    }
}
