//! The control socket on systems that have Unix sockets.

use std::marker::PhantomData;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Answer, CONNECTIONS_MAX, Line, REQUEST_MAX, REQUEST_WITHIN, read_reply, read_request};
use crate::failure::{Class, Context, Failure};

/// The daemon's end. The socket file disappears when this is dropped.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlServer {
    /// Listens at `path` with the file permissions `mode` (0o600: the owner alone).
    ///
    /// A socket file that a dead process left behind is replaced; if a living one answers there,
    /// the failure is of class `Conflict`. Must be called within a tokio runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, Failure> {
        let cannot = || format!("cannot listen at {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).context(cannot())?;
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(already_running(path)),
            // Something that is no socket gives another error than this and is left alone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                fs::remove_file(path).context(cannot())?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse if is_socket(path) => already_running(path),
            _ => Failure::io(cannot(), &error),
        })?;
        let server = ControlServer {
            path: path.to_owned(),
            listener,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).context(cannot())?;
        Ok(server)
    }

    /// Answers every request with `handler`, for ever. Each connection has its own task, so a
    /// slow answer holds up nobody else.
    pub async fn serve<Req, Rep, F, Fut>(self, handler: F) -> Result<(), Failure>
    where
        Req: DeserializeOwned + Send + 'static,
        Rep: Serialize + Send + 'static,
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer<Rep>, Failure>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // Dropping the set ends the tasks: nobody is answered by a daemon that stopped serving.
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => {
                    tracing::warn!("the control socket cannot accept: {error}");
                    // Out of descriptors: without a pause this would spin until some come back.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => {
                    let what = format!("the control socket {} failed", self.path.display());
                    return Err(Failure::io(what, &error));
                }
            };
            let handler = Arc::clone(&handler);
            tasks.spawn(async move {
                let _place = place;
                let (reader, mut writer) = stream.into_split();
                if let Err(error) = answer(reader, &mut writer, &*handler).await {
                    tracing::debug!("a control connection ended early: {error}");
                }
            });
            while tasks.try_join_next().is_some() {}
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // While we listen nobody else can have taken the name, so the file is ours.
        let _ = fs::remove_file(&self.path);
    }
}

fn already_running(path: &Path) -> Failure {
    Failure::new(
        Class::Conflict,
        format!(
            "another one is running already and answers at {}",
            path.display()
        ),
    )
    .with_advice("stop it first")
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Whether accepting may succeed later: the process or the system ran out of something.
fn is_passing(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidInput) && error.raw_os_error() != Some(9)
}

async fn answer<Req, Rep, F, Fut>(
    reader: OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    handler: &F,
) -> io::Result<()>
where
    Req: DeserializeOwned,
    Rep: Serialize,
    F: Fn(Req) -> Fut,
    Fut: Future<Output = Result<Answer<Rep>, Failure>>,
{
    let mut reader = BufReader::new(reader);
    let mut text = Vec::new();
    let mut limited = (&mut reader).take(REQUEST_MAX as u64 + 1);
    let reading = limited.read_until(b'\n', &mut text);
    let answer = match tokio::time::timeout(REQUEST_WITHIN, reading).await {
        Ok(Ok(0)) => return Ok(()), // somebody only looked whether we live
        Ok(Ok(_)) if text.len() > REQUEST_MAX => Err(Failure::usage(format!(
            "the request is longer than {REQUEST_MAX} bytes"
        ))),
        Ok(Ok(_)) => match read_request(&text) {
            Ok(request) => handler(request).await,
            Err(failure) => Err(failure),
        },
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    match answer {
        Ok(Answer::Once(reply)) => writer.write_all(&line(&Line::Reply(reply))?).await,
        Err(failure) => {
            writer
                .write_all(&line(&Line::<Rep>::Failure(failure))?)
                .await
        }
        Ok(Answer::Stream(mut replies)) => {
            let mut ignored = [0; 64];
            loop {
                tokio::select! {
                    reply = replies.recv() => match reply {
                        Some(reply) => writer.write_all(&line(&Line::Reply(reply))?).await?,
                        None => return Ok(()),
                    },
                    // The asker has nothing more to say; its end of file means that it hung up.
                    read = reader.read(&mut ignored) => if read? == 0 { return Ok(()) },
                }
            }
        }
    }
}

fn line<Rep: Serialize>(line: &Line<Rep>) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// The asker's end.
#[derive(Debug)]
pub struct ControlClient;

impl ControlClient {
    /// Sends `request` to the daemon at `path` and returns its reply, or the failure it met. The
    /// failure is of class `NotRunning` when nobody listens there.
    pub async fn call<Req: Serialize, Rep: DeserializeOwned>(
        path: &Path,
        request: &Req,
    ) -> Result<Rep, Failure> {
        let mut replies = Self::stream(path, request).await?;
        replies.next().await.unwrap_or_else(|| Err(hung_up()))
    }

    /// Sends `request` to the daemon at `path` and returns the stream of its replies.
    pub async fn stream<Req: Serialize, Rep: DeserializeOwned>(
        path: &Path,
        request: &Req,
    ) -> Result<Replies<Rep>, Failure> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
                    Class::NotRunning,
                    format!("nothing answers at {}", path.display()),
                ),
                _ => Failure::io(
                    format!("cannot reach the daemon at {}", path.display()),
                    &error,
                ),
            })?;
        let (reader, mut writer) = stream.into_split();
        let mut text = serde_json::to_vec(request).map_err(|error| {
            Failure::new(Class::Other, format!("cannot write a request: {error}"))
        })?;
        text.push(b'\n');
        match writer.write_all(&text).await {
            // It has heard enough and hung up; what it says about that is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.context("cannot ask the daemon")?,
        }
        Ok(Replies {
            lines: BufReader::new(reader),
            _writer: writer,
            _reply: PhantomData,
        })
    }
}

fn hung_up() -> Failure {
    Failure::new(Class::NotRunning, "the daemon ended before it answered")
}

/// The replies to one request.
#[derive(Debug)]
pub struct Replies<Rep> {
    lines: BufReader<OwnedReadHalf>,
    // Held open: closing it would tell the daemon that we hung up.
    _writer: OwnedWriteHalf,
    _reply: PhantomData<fn() -> Rep>,
}

impl<Rep: DeserializeOwned> Replies<Rep> {
    /// The next reply; `None` when the daemon has no more to say.
    pub async fn next(&mut self) -> Option<Result<Rep, Failure>> {
        let mut text = Vec::new();
        match self.lines.read_until(b'\n', &mut text).await {
            Ok(0) => None,
            Ok(_) => Some(read_reply(&text)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => Some(Err(Failure::io("cannot read the daemon's answer", &error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use tokio::sync::mpsc;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Request {
        Double(u32),
        CountTo(u32),
        Forever,
        Fail,
    }

    async fn handler(request: Request) -> Result<Answer<u32>, Failure> {
        match request {
            Request::Double(number) => Ok(Answer::Once(number * 2)),
            Request::CountTo(last) => {
                let (sender, receiver) = mpsc::channel(1);
                tokio::spawn(async move {
                    for number in 1..=last {
                        if sender.send(number).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(Answer::Stream(receiver))
            }
            Request::Forever => std::future::pending().await,
            Request::Fail => Err(Failure::new(Class::Network, "no server").with_advice("wait")),
        }
    }

    struct Daemon {
        directory: tempfile::TempDir,
        task: tokio::task::JoinHandle<Result<(), Failure>>,
    }

    impl Daemon {
        fn start() -> Self {
            let directory = tempfile::tempdir().expect("a directory for the test");
            let server = ControlServer::bind(&directory.path().join("run/m.sock"), 0o600)
                .expect("the place is free");
            let task = tokio::spawn(server.serve(handler));
            Daemon { directory, task }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("run/m.sock")
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_even_while_another_one_takes_its_time() {
        let daemon = Daemon::start();
        let slow = daemon.path();
        let waiting =
            tokio::spawn(
                async move { ControlClient::call::<_, u32>(&slow, &Request::Forever).await },
            );
        let reply: u32 = ControlClient::call(&daemon.path(), &Request::Double(21))
            .await
            .expect("answered");
        assert_eq!(reply, 42);
        daemon.task.abort();
        let failure = waiting
            .await
            .expect("no panic")
            .expect_err("the daemon ended");
        assert_eq!(failure.class(), Class::NotRunning);
    }

    #[tokio::test]
    async fn a_streaming_request_has_many_replies_and_an_end() {
        let daemon = Daemon::start();
        let mut replies = ControlClient::stream::<_, u32>(&daemon.path(), &Request::CountTo(3))
            .await
            .expect("accepted");
        let mut seen = Vec::new();
        while let Some(reply) = replies.next().await {
            seen.push(reply.expect("a number"));
        }
        assert_eq!(seen, [1, 2, 3]);
    }

    #[tokio::test]
    async fn the_daemon_learns_that_a_listener_hung_up() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("m.sock");
        let server = ControlServer::bind(&path, 0o600).expect("the place is free");
        let (gone, mut told) = mpsc::channel::<()>(1);
        tokio::spawn(server.serve(move |(): ()| {
            let gone = gone.clone();
            async move {
                let (sender, receiver) = mpsc::channel::<u32>(1);
                tokio::spawn(async move {
                    sender.closed().await;
                    let _ = gone.send(()).await;
                });
                Ok(Answer::Stream(receiver))
            }
        }));
        drop(
            ControlClient::stream::<_, u32>(&path, &())
                .await
                .expect("accepted"),
        );
        told.recv()
            .await
            .expect("the stream's receiver was dropped");
    }

    #[tokio::test]
    async fn a_failure_in_the_daemon_arrives_with_class_and_advice() {
        let daemon = Daemon::start();
        let failure = ControlClient::call::<_, u32>(&daemon.path(), &Request::Fail)
            .await
            .expect_err("it always fails");
        assert_eq!(
            failure,
            Failure::new(Class::Network, "no server").with_advice("wait")
        );
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_a_sentence() {
        let daemon = Daemon::start();
        for nonsense in [
            serde_json::json!({"triple": 1}),
            serde_json::json!("x".repeat(REQUEST_MAX)),
        ] {
            let failure = ControlClient::call::<_, u32>(&daemon.path(), &nonsense)
                .await
                .expect_err("not understood");
            assert_eq!(failure.class(), Class::Usage, "{failure}");
        }
    }

    #[tokio::test]
    async fn asking_where_nobody_listens_says_so() {
        let failure = ControlClient::call::<_, u32>(Path::new("/nonexistent/m.sock"), &1)
            .await
            .expect_err("nobody is there");
        assert_eq!(failure.exit_code(), 7);
    }

    #[tokio::test]
    async fn a_second_daemon_is_refused_and_the_first_keeps_its_place() {
        let daemon = Daemon::start();
        let failure = ControlServer::bind(&daemon.path(), 0o600).expect_err("the place is taken");
        assert_eq!(failure.exit_code(), 6, "{failure}");
        let reply: u32 = ControlClient::call(&daemon.path(), &Request::Double(1))
            .await
            .expect("still there");
        assert_eq!(reply, 2);
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_behind_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("m.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound")); // leaves the file
        let server = ControlServer::bind(&path, 0o640).expect("nobody lives there");
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        drop(server);
        assert!(!path.exists(), "the file goes with its server");
    }

    #[tokio::test]
    async fn an_ordinary_file_in_the_way_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("m.sock");
        fs::write(&path, "precious").expect("written");
        ControlServer::bind(&path, 0o600).expect_err("the name is taken");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }
}
