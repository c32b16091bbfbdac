//! A kubelet that answers on a unix socket as the real one does, or as told.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::Stream;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tower_service::Service;

/// `ListPodResourcesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

/// `AllocatableResourcesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct AllocatableResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
    #[prost(int64, repeated, tag = "2")]
    pub cpu_ids: Vec<i64>,
}

/// `PodResources`.
#[derive(Clone, PartialEq, Message)]
pub struct PodResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
    #[prost(int64, repeated, tag = "4")]
    pub cpu_ids: Vec<i64>,
}

/// `ContainerResources`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    #[prost(int64, repeated, tag = "3")]
    pub cpu_ids: Vec<i64>,
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

/// `ContainerDevices`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// `TopologyInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct TopologyInfo {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// `NUMANode`.
#[derive(Clone, PartialEq, Message)]
pub struct NumaNode {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// `DynamicResource`.
#[derive(Clone, PartialEq, Message)]
pub struct DynamicResource {
    #[prost(string, tag = "2")]
    pub claim_name: String,
    #[prost(string, tag = "3")]
    pub claim_namespace: String,
    #[prost(message, repeated, tag = "4")]
    pub claim_resources: Vec<ClaimResource>,
}

/// `ClaimResource`.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimResource {
    #[prost(string, tag = "2")]
    pub driver_name: String,
    #[prost(string, tag = "3")]
    pub pool_name: String,
    #[prost(string, tag = "4")]
    pub device_name: String,
}

/// How a method answers.
#[derive(Debug, Clone, Default)]
pub enum Manner {
    /// With what it was told.
    #[default]
    Answers,
    /// Never.
    Stalls,
    /// With an error.
    Fails(tonic::Code),
    /// With these bytes in place of a message.
    Says(Bytes),
}

/// What a kubelet knows and how it behaves; shared between its sockets.
#[derive(Debug, Clone, Default)]
pub struct Node {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: Vec<PodResources>,
    allocatable: Vec<ContainerDevices>,
    list: Manner,
    get_allocatable: Manner,
    asked: [usize; 2],
}

impl Node {
    /// Gives devices to a container: `namespace/pod/container`.
    pub fn give(&self, container: &str, resource: &str, devices: &[&str]) {
        let mut inner = self.inner.lock().unwrap();
        let container = inner.container(container);
        // Each device by itself, with its place, as the kubelet does.
        container.devices.extend(devices.iter().map(|id| ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: vec![(*id).to_owned()],
            topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }),
        }));
    }

    /// Gives a device to a container by way of a claim.
    pub fn claim(&self, container: &str, driver: &str) {
        let mut inner = self.inner.lock().unwrap();
        let claimed = ClaimResource {
            driver_name: driver.to_owned(),
            pool_name: "node-1".to_owned(),
            device_name: "gpu-0".to_owned(),
        };
        inner.container(container).dynamic_resources.push(DynamicResource {
            claim_name: "claim".to_owned(),
            claim_namespace: "ns".to_owned(),
            claim_resources: vec![claimed],
        });
    }

    /// Forgets a pod: `namespace/pod`.
    pub fn remove(&self, pod: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.pods.retain(|p| format!("{}/{}", p.namespace, p.name) != pod);
    }

    /// Says which devices there are.
    pub fn allocatable(&self, resource: &str, devices: &[&str]) {
        self.inner.lock().unwrap().allocatable = vec![ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: devices.iter().map(|id| (*id).to_owned()).collect(),
            topology: None,
        }];
    }

    /// How `List` behaves from now on.
    pub fn list(&self, manner: Manner) {
        self.inner.lock().unwrap().list = manner;
    }

    /// How `GetAllocatableResources` behaves from now on.
    pub fn get_allocatable(&self, manner: Manner) {
        self.inner.lock().unwrap().get_allocatable = manner;
    }

    /// How often each was asked.
    pub fn asked(&self) -> [usize; 2] {
        self.inner.lock().unwrap().asked
    }

    /// Answers on a new socket at this path, in place of one that is there, until the result is dropped.
    pub fn serve(&self, path: &Path) -> Serving {
        let _ = std::fs::remove_file(path);
        let incoming = Incoming(UnixListener::bind(path).unwrap());
        let serving = Server::builder().add_service(Lister(self.clone())).serve_with_incoming(incoming);
        Serving(tokio::spawn(async move { serving.await.unwrap() }))
    }

    fn answer(&self, allocatable: bool) -> Manner {
        let mut inner = self.inner.lock().unwrap();
        inner.asked[usize::from(allocatable)] += 1;
        let manner = if allocatable { &inner.get_allocatable } else { &inner.list };
        match manner {
            Manner::Answers if allocatable => {
                let devices = inner.allocatable.clone();
                let message = AllocatableResourcesResponse { devices, cpu_ids: vec![0, 1] };
                Manner::Says(message.encode_to_vec().into())
            }
            Manner::Answers => {
                let message = ListPodResourcesResponse { pod_resources: inner.pods.clone() };
                Manner::Says(message.encode_to_vec().into())
            }
            other => other.clone(),
        }
    }
}

impl Inner {
    fn container(&mut self, path: &str) -> &mut ContainerResources {
        let [namespace, pod, container] = path.split('/').collect::<Vec<_>>()[..] else {
            panic!("namespace/pod/container, not {path}");
        };
        let at = self.pods.iter().position(|p| (p.namespace.as_str(), p.name.as_str()) == (namespace, pod));
        let at = at.unwrap_or_else(|| {
            self.pods.push(PodResources {
                name: pod.to_owned(),
                namespace: namespace.to_owned(),
                containers: Vec::new(),
                cpu_ids: vec![3, 4],
            });
            self.pods.len() - 1
        });
        let containers = &mut self.pods[at].containers;
        let at = containers.iter().position(|c| c.name == container).unwrap_or_else(|| {
            containers.push(ContainerResources { name: container.to_owned(), ..Default::default() });
            containers.len() - 1
        });
        &mut containers[at]
    }
}

/// A socket that is answered; dropped, it is closed with all its connections, and its file stays as the kubelet's does.
pub struct Serving(tokio::task::JoinHandle<()>);

impl Serving {
    /// Ends it, and returns when it has ended.
    pub async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Incoming(UnixListener);

impl Stream for Incoming {
    type Item = std::io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_accept(cx).map(|accepted| Some(accepted.map(|(socket, _)| socket)))
    }
}

#[derive(Clone)]
struct Lister(Node);

impl NamedService for Lister {
    const NAME: &'static str = "v1.PodResourcesLister";
}

type Pending<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for Lister {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pending<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let allocatable = match request.uri().path() {
            "/v1.PodResourcesLister/List" => false,
            "/v1.PodResourcesLister/GetAllocatableResources" => true,
            _ => {
                let unknown = Status::unimplemented("unknown method").into_http();
                return Box::pin(async move { Ok(unknown) });
            }
        };
        let call = Call { node: self.0.clone(), allocatable };
        Box::pin(async move { Ok(Grpc::new(Raw).unary(call, request).await) })
    }
}

struct Call {
    node: Node,
    allocatable: bool,
}

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = Pending<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        assert!(request.get_ref().is_empty(), "both requests are empty");
        let manner = self.node.answer(self.allocatable);
        Box::pin(async move {
            match manner {
                Manner::Says(message) => Ok(Response::new(message)),
                Manner::Fails(code) => Err(Status::new(code, "told to")),
                Manner::Stalls | Manner::Answers => std::future::pending().await,
            }
        })
    }
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        use bytes::Buf;
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
