//! Listening: addresses, unix sockets, limits on connections, handshakes outside the accept loop.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::telemetry::Metrics;

fn endpoint(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

#[tokio::test]
async fn tcp_streams_carry_bytes_and_know_their_peer() {
    let listener = Listener::bind(&endpoint("127.0.0.1:0"), Transport::Tcp).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (raw, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().ok());
    let mut server = Stream::from(raw);
    assert_eq!((server.peer_addr(), server.alpn()), (peer, None));
    assert!(tokio::io::AsyncWrite::is_write_vectored(&server));
    let parts = [io::IoSlice::new(b"hel"), io::IoSlice::new(b"lo")];
    assert_eq!(server.write_vectored(&parts).await.unwrap(), 5, "a vectored write is one write");
    server.shutdown().await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "hello");
}

#[tokio::test]
async fn accepted_connections_inherit_the_options() {
    let listener = Listener::bind(&endpoint("127.0.0.1:0"), Transport::Tcp).await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (raw, _) = listener.accept().await.unwrap();
    let stream::Socket::Tcp(tcp) = raw.socket_ref() else { panic!("not TCP") };
    assert!(tcp.nodelay().unwrap());
    assert!(socket2::SockRef::from(tcp).keepalive().unwrap());
}

#[tokio::test]
async fn ipv4_clients_of_a_wildcard_are_ipv4_clients() {
    // Port only, so both families; closed again at once, and never reached from outside the test.
    let listener = Listener::bind(&endpoint("[::]:0"), Transport::Tcp).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().ok());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let first = Listener::bind(&endpoint("127.0.0.1:0"), Transport::Tcp).await.unwrap();
    let taken = format!("127.0.0.1:{}", first.local_addr().unwrap().port());
    let Err(error) = Listener::bind(&endpoint(&taken), Transport::Tcp).await else { panic!("bound twice") };
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken), "{error}");
}

#[tokio::test]
async fn open_connections_are_bounded() {
    let options = ListenOptions { max_connections: 1, ..ListenOptions::default() };
    let listener = Listener::bind_with(&endpoint("127.0.0.1:0"), Transport::Tcp, options).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_a, _b) = tokio::join!(TcpStream::connect(address), TcpStream::connect(address));
    let (first, _) = listener.accept().await.unwrap();
    let mut second = Box::pin(listener.accept());
    let early = futures_poll(&mut second).await;
    assert!(early.is_none(), "accepted beyond the limit");
    drop(first);
    second.await.unwrap();
}

/// Polls a future until the runtime has nothing else to do.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    for _ in 0..10 {
        tokio::select! {
            biased;
            done = &mut *future => return Some(done),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

#[tokio::test]
async fn unix_sockets_replace_stale_files_and_leave_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let at = Endpoint::parse(&format!("unix://{}", path.display())).unwrap();

    // What a killed process leaves: a socket file on which nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let options = ListenOptions { unix_mode: Some(0o620), ..ListenOptions::default() };
    let listener = Listener::bind_with(&at, Transport::Tcp, options).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
    assert_eq!(listener.local_addr(), None);

    let mut client = UnixStream::connect(&path).await.unwrap();
    let (raw, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, None);
    client.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    Stream::from(raw).read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");

    let Err(error) = Listener::bind(&at, Transport::Tcp).await else { panic!("took a living socket") };
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    assert!(!path.exists(), "the socket file stays behind");

    std::fs::write(&path, "precious").unwrap();
    assert!(Listener::bind(&at, Transport::Tcp).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn errors_of_accept_are_told_apart() {
    let of = |code| classify(&io::Error::from_raw_os_error(code));
    for exhausted in [23, 24, 105, 12] {
        assert_eq!(of(exhausted), AcceptError::Exhausted, "{exhausted}");
    }
    // ECONNABORTED, ECONNRESET, EPROTO, ENETDOWN, EPERM.
    for connection in [103, 104, 71, 100, 1] {
        assert_eq!(of(connection), AcceptError::Connection, "{connection}");
    }
    assert_eq!(of(9), AcceptError::Fatal);
}

#[tokio::test(start_paused = true)]
async fn the_accept_loop_rests_when_descriptors_run_out() {
    let metrics = Metrics::new();
    let pauses = metrics.series("pauses", "-", &[]);
    let options = ListenOptions { pauses: Some(pauses.clone()), ..ListenOptions::default() };
    let listener = Listener::bind_with(&endpoint("127.0.0.1:0"), Transport::Tcp, options).await.unwrap();
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        listener.recover(io::Error::from_raw_os_error(24)).await.unwrap();
    }
    assert_eq!((start.elapsed(), pauses.get()), (3 * PAUSE, 3));
    listener.recover(io::Error::from_raw_os_error(103)).await.unwrap();
    assert_eq!((start.elapsed(), pauses.get()), (3 * PAUSE, 3));
    assert!(listener.recover(io::Error::from_raw_os_error(9)).await.is_err());
}
