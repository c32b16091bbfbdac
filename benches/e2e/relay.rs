//! What the bytes themselves cost: a relay at TCP level, and a bare tonic server and client that pass each message
//! on without looking at it. Both run as processes of their own, so that their processor time can be told apart.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower_service::Service;

/// Copies bytes both ways until either side closes.
pub async fn tcp(listen: SocketAddr, target: SocketAddr) {
    let listener = TcpListener::bind(listen).await.expect("bind");
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, 65_536, 65_536).await;
            let _ = server.shutdown().await;
        });
    }
}

/// Takes unary calls of the three OTLP services and makes the same calls to the target.
pub async fn tonic(listen: SocketAddr, target: SocketAddr) {
    let endpoint = Endpoint::from_shared(format!("http://{target}")).expect("an address");
    let channel = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_lazy();
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(Traces(Relay(channel.clone())))
        .add_service(Metrics(Relay(channel.clone())))
        .add_service(Logs(Relay(channel)))
        .serve(listen)
        .await
        .expect("serve");
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

#[derive(Clone)]
struct Relay(Channel);

macro_rules! service {
    ($type:ident, $name:literal) => {
        #[derive(Clone)]
        struct $type(Relay);

        impl NamedService for $type {
            const NAME: &'static str = $name;
        }

        impl Service<http::Request<Body>> for $type {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Answer;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Answer {
                self.0.pass_on(request)
            }
        }
    };
}

service!(Traces, "opentelemetry.proto.collector.trace.v1.TraceService");
service!(Metrics, "opentelemetry.proto.collector.metrics.v1.MetricsService");
service!(Logs, "opentelemetry.proto.collector.logs.v1.LogsService");

impl Relay {
    fn pass_on(&self, request: http::Request<Body>) -> Answer {
        let channel = self.0.clone();
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Box::pin(async move {
            let mut server =
                Grpc::new(PassThrough).apply_max_message_size_config(Some(usize::MAX), Some(usize::MAX));
            Ok(server.unary(Call { channel, path }, request).await)
        })
    }
}

struct Call {
    channel: Channel,
    path: PathAndQuery,
}

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (channel, path) = (self.channel.clone(), self.path.clone());
        Box::pin(async move {
            let mut client = Client::new(channel).max_decoding_message_size(usize::MAX);
            client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            client.unary(Request::new(request.into_inner()), path, PassThrough).await
        })
    }
}

#[derive(Clone, Copy, Default)]
struct PassThrough;

impl Codec for PassThrough {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = PassThrough;
    type Decoder = PassThrough;

    fn encoder(&mut self) -> PassThrough {
        PassThrough
    }

    fn decoder(&mut self) -> PassThrough {
        PassThrough
    }
}

impl Encoder for PassThrough {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for PassThrough {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
