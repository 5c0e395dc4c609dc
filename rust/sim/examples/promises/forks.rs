//! Copies of this process, each of which works on its own from here on. The state machines of the overlay
//! cannot be cloned; a process can, and shares with its copies what neither changes.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, PipeWriter, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process,
};

use fork::{Fork, fork, waitpid};

/// Does one piece of work in a copy of this process for each seed, at most `at_once` at a time, and gives
/// what each wrote, in order. This process must have one thread.
///
/// # Errors
/// Where the system refuses a copy, or one ended otherwise than by returning.
pub(crate) fn each(
    seeds: impl Iterator<Item = u64>,
    at_once: usize,
    mut work: impl FnMut(u64, &mut PipeWriter) -> io::Result<()>,
) -> io::Result<Vec<String>> {
    let (mut running, mut wrote) = (VecDeque::new(), Vec::new());
    for seed in seeds {
        if running.len() == at_once {
            wrote.extend(running.pop_front().map(finish).transpose()?);
        }
        running.push_back(begin(seed, &mut work)?);
    }
    for copy in running {
        wrote.push(finish(copy)?);
    }
    Ok(wrote)
}

type Copy = (i32, PipeReader);

fn begin(
    seed: u64,
    work: &mut impl FnMut(u64, &mut PipeWriter) -> io::Result<()>,
) -> io::Result<Copy> {
    let (reader, mut writer) = io::pipe()?;
    // What waits in a buffer would be printed by each copy.
    io::stdout().flush()?;
    match fork()? {
        Fork::Parent(pid) => Ok((pid, reader)),
        Fork::Child => {
            drop(reader);
            let done = catch_unwind(AssertUnwindSafe(|| work(seed, &mut writer)));
            process::exit(i32::from(!matches!(done, Ok(Ok(())))))
        }
    }
}

fn finish((pid, mut reader): Copy) -> io::Result<String> {
    let mut wrote = String::new();
    reader.read_to_string(&mut wrote)?;
    match waitpid(pid)? {
        0 => Ok(wrote),
        status => Err(io::Error::other(format!("a copy of the process ended with {status}"))),
    }
}
