//! The Rust ends of `benchmarks/streams.py`, which compares the speed of Python's streams with
//! Rust's:
//!
//! ```sh
//! streams serve               # prints its ticket; takes, gives and echoes bytes until killed
//! streams write TICKET MIB    # prints how many seconds MIB took, in writes of 1 MiB
//! streams read TICKET MIB     # the same from there to here
//! ```

use std::{error::Error, time::Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use iroh_gossip_discovery::{
    Bootstrap, Config, NodeBuilder, StreamError, StreamReader, StreamWriter, Ticket,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: usize = 1024 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve"] => serve().await,
        ["write", ticket, mib] => drive(ticket, mib.parse()?, true).await,
        ["read", ticket, mib] => drive(ticket, mib.parse()?, false).await,
        _ => Err("usage: streams serve | write TICKET MIB | read TICKET MIB".into()),
    }
}

async fn serve() -> Result<()> {
    let node = NodeBuilder::new("served", "streams").config(Config::local());
    let node = node.build().await?;
    let mut sink = node.swarm.serve("sink/1")?;
    let mut source = node.swarm.serve("source/1")?;
    let mut echo = node.swarm.serve("echo/1")?;
    println!("{}", node.swarm.ticket());
    loop {
        tokio::select! {
            Some(stream) = sink.next() => {
                tokio::spawn(take(stream.reader, stream.writer));
            }
            Some(stream) = source.next() => {
                tokio::spawn(give(stream.reader, stream.writer));
            }
            Some(stream) = echo.next() => {
                tokio::spawn(repeat(stream.reader, stream.writer));
            }
            else => return Ok(()),
        }
    }
}

/// Reads a stream to its end, and answers with the number of bytes.
async fn take(
    mut reader: StreamReader,
    mut writer: StreamWriter,
) -> std::result::Result<(), StreamError> {
    let total = read_all(&mut reader).await?;
    write_all(&mut writer, total.to_be_bytes().to_vec().into()).await
}

/// Writes as many MiB as its first eight bytes say.
async fn give(
    mut reader: StreamReader,
    mut writer: StreamWriter,
) -> std::result::Result<(), StreamError> {
    write_mib(&mut writer, read_number(&mut reader).await?).await
}

async fn repeat(
    mut reader: StreamReader,
    mut writer: StreamWriter,
) -> std::result::Result<(), StreamError> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            read => write_all(&mut writer, Bytes::copy_from_slice(&buffer[..read])).await?,
        }
    }
}

/// Moves `mib` MiB, and prints the seconds from the first byte until all have arrived.
async fn drive(ticket: &str, mib: u64, write: bool) -> Result<()> {
    let ticket: Ticket = ticket.parse()?;
    let peer = ticket.id;
    let node = NodeBuilder::new("driver", "streams").config(Config::local());
    let node = node.bootstrap(vec![Bootstrap::from(ticket)]).build().await?;
    let protocol = if write { "sink/1" } else { "source/1" };
    let (mut reader, mut writer) = node.swarm.open_stream(peer, protocol).await?;
    let begin = Instant::now();
    let arrived = if write {
        write_mib(&mut writer, mib).await?;
        writer.finish();
        read_number(&mut reader).await?
    } else {
        write_all(&mut writer, mib.to_be_bytes().to_vec().into()).await?;
        read_all(&mut reader).await?
    };
    let seconds = begin.elapsed().as_secs_f64();
    if arrived != mib * MIB as u64 {
        return Err(format!("{arrived} bytes arrived").into());
    }
    println!("{seconds}");
    node.close().await;
    Ok(())
}

async fn write_mib(writer: &mut StreamWriter, mib: u64) -> std::result::Result<(), StreamError> {
    let piece = Bytes::from(vec![0; MIB]);
    for _ in 0..mib {
        write_all(writer, piece.clone()).await?;
    }
    Ok(())
}

async fn write_all(
    writer: &mut StreamWriter,
    mut data: Bytes,
) -> std::result::Result<(), StreamError> {
    while !data.is_empty() {
        writer.write_chunk(&mut data).await?;
    }
    Ok(())
}

async fn read_all(reader: &mut StreamReader) -> std::result::Result<u64, StreamError> {
    let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

async fn read_number(reader: &mut StreamReader) -> std::result::Result<u64, StreamError> {
    let mut number = [0; 8];
    let mut read = 0;
    while read < number.len() {
        match reader.read(&mut number[read..]).await? {
            0 => return Err(StreamError::Closed),
            more => read += more,
        }
    }
    Ok(u64::from_be_bytes(number))
}
