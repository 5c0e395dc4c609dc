//! Work that blocks, off the runtime's workers.

use crate::error::Error;

/// Runs a function that blocks on a thread outside the runtime's workers, which must never block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Endpoint(error.to_string()))?
}
