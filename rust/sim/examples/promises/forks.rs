//! Forks this process, so that each copy continues from the same state on its own. The state
//! machines of the overlay cannot be cloned, but a process can. It shares with its copies the
//! memory that neither changes.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, PipeWriter, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process,
};

use fork::{Fork, fork, waitpid};

/// Does the work for each seed in a copy of this process, at most `at_once` at a time. Returns what
/// each copy wrote, in order. This process must have only one thread.
///
/// # Errors
/// If the system refuses a copy, or a copy ended otherwise than by returning.
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
    // Each copy would print again what still waits in a buffer.
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
