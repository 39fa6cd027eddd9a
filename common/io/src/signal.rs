//! The wish to stop, as the operating system tells it.

use crate::failure::{Context, Failure};

/// Starts to catch the signals that ask a process to stop, and returns a future that ends with
/// the name of the first that comes.
///
/// They are caught from this call on, not from the first poll: a daemon that has begun to change
/// routes must not be killed by an early Ctrl-C. Call it again to hear of a second one. Must be
/// called within a tokio runtime.
#[cfg(unix)]
pub fn shutdown() -> Result<impl Future<Output = &'static str> + Send, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = "cannot catch signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).context(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

/// Starts to catch Ctrl-C, and returns a future that ends with its name when it comes. Must be
/// called within a tokio runtime.
#[cfg(windows)]
pub fn shutdown() -> Result<impl Future<Output = &'static str> + Send, Failure> {
    let mut interrupt = tokio::signal::windows::ctrl_c().context("cannot catch Ctrl-C")?;
    Ok(async move {
        interrupt.recv().await;
        "Ctrl-C"
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(unsafe_code)] // raise() has no safe form in the crates at hand

    #[tokio::test]
    async fn a_signal_that_came_before_the_first_poll_is_not_lost() {
        let shutdown = super::shutdown().expect("signals can be caught");
        // SAFETY: raising a signal that has a handler has no other effect than to run it.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        assert_eq!(shutdown.await, "SIGTERM");
    }
}
