//! The Open Inference Protocol over gRPC: the service, `grpc.health.v1.Health` and server reflection, in clear text
//! unless the server has a certificate.

mod convert;
mod describe;
mod service;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::failure::Failure;
use super::infer::InferRequest;
use crate::app::App;
use crate::tls::{Inside, Tls};
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use service::Service;

/// Types made of `proto/inference.proto`.
#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::enum_variant_names,
    clippy::too_many_lines,
    reason = "generated code"
)]
mod proto {
    tonic::include_proto!("inference");

    /// The schema itself, for reflection.
    pub(super) const DESCRIPTOR: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/inference_descriptor.bin"));
}

/// Reads the bytes of a `ModelInferRequest` message.
///
/// # Errors
/// When they are no such message, or its parts do not fit.
pub fn read_request(message: &[u8]) -> Result<InferRequest, Failure> {
    let message = proto::ModelInferRequest::decode(message);
    let message = message.map_err(|error| Failure::invalid(error.to_string()))?;
    convert::request(message).map(|(request, _)| request)
}

/// Clients that agree on keys at the same time.
const HANDSHAKES: usize = 256;
/// How often the health service learns whether the server is ready.
const HEALTH_PERIOD: Duration = Duration::from_millis(200);

/// Settings of the gRPC port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Port; `None` opens none, 0 lets the system choose.
    pub port: Option<u16>,
    /// Largest message received, in bytes.
    pub max_receive: usize,
    /// Largest message sent, in bytes.
    pub max_send: usize,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self { port: None, max_receive: 64 << 20, max_send: 64 << 20 }
    }
}

/// Opens the port of the settings; `None` without one.
///
/// # Errors
/// When it is taken; the message names it.
pub async fn bind(app: &App) -> std::io::Result<Option<TcpListener>> {
    let config = app.config();
    let Some(port) = config.kserve.grpc.port else { return Ok(None) };
    let listener = TcpListener::bind((config.host.as_str(), port)).await;
    listener.map(Some).map_err(|error| {
        let address = format!("{}:{port}", config.host);
        std::io::Error::new(error.kind(), format!("cannot listen on {address} (gRPC): {error}"))
    })
}

/// Serves until `closing`, then until the running calls are answered.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, closing: CancellationToken) {
    let config = app.config().kserve.grpc.clone();
    let service = GrpcInferenceServiceServer::new(Service::new(Arc::clone(&app), closing.clone()))
        .max_decoding_message_size(config.max_receive)
        .max_encoding_message_size(config.max_send)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let (reporter, health) = tonic_health::server::health_reporter();
    let watching = closing.clone();
    let watcher = report_health(Arc::clone(&app), reporter, watching);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut server = Server::builder().add_service(service);
    if !app.config().kserve.strict {
        server = server.add_service(health);
        match (reflection().build_v1(), reflection().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => server = server.add_service(v1).add_service(v1alpha),
            (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "no gRPC reflection"),
        }
    }
    let incoming = TcpListenerStream::new(listener);
    let ends = closing.cancelled();
    let serving = async {
        match app.config().tls.clone() {
            None => server.serve_with_incoming_shutdown(incoming, ends).await,
            Some(tls) => server.serve_with_incoming_shutdown(secured(incoming, tls), ends).await,
        }
    };
    let (served, ()) = tokio::join!(serving, watcher);
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}

/// The connections that agree on keys; one that takes its time does not hold the others.
fn secured(
    incoming: TcpListenerStream,
    tls: Tls,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    let accepted = incoming.map(move |socket| {
        let tls = tls.clone();
        async move { tls.accept(Inside::Grpc, socket?).await }
    });
    accepted.buffer_unordered(HANDSHAKES).filter_map(async |socket| match socket {
        Ok(socket) => Some(Ok(socket)),
        Err(error) => {
            tracing::debug!(%error, "no TLS connection (gRPC)");
            None
        }
    })
}

/// Keeps the health service up to date until `closing`.
async fn report_health(app: Arc<App>, reporter: HealthReporter, closing: CancellationToken) {
    const SERVICE: &str = "inference.GRPCInferenceService";
    let mut known = None;
    loop {
        let ready = app.is_ready() && !closing.is_cancelled();
        if known != Some(ready) {
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            reporter.set_service_status(SERVICE, status).await;
            known = Some(ready);
        }
        if closing.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(HEALTH_PERIOD) => {}
            () = closing.cancelled() => {}
        }
    }
}
