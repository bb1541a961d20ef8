//! The calls of `inference.GRPCInferenceService`.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::Method;
use futures_util::{Stream, StreamExt};
use tokenmill_predictive::TensorSpec;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::model_repository_parameter::ParameterChoice;
use super::proto::repository_index_response::ModelIndex;
use super::proto::*;
use super::{convert, describe};
use crate::admission::{RequestContext, authorize};
use crate::app::App;
use crate::kserve::failure::{Failure, FailureKind};
use crate::kserve::statistics::Watch;
use crate::kserve::{infer, metadata, strict};
use crate::random;

/// The service over the server's state.
pub(super) struct Service {
    app: Arc<App>,
    /// Ends streams, which would hold the drain otherwise.
    closing: CancellationToken,
}

/// A call in flight: counted, so that a drain waits for it.
struct InFlight(Arc<App>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Counts a failed call; the log keeps what only we should know.
fn status(app: &App, failure: Failure) -> Status {
    app.metrics.reject(failure.cause(), failure.status(app.config.kserve.strict).as_u16());
    let text = match failure.kind {
        FailureKind::Internal => {
            tracing::warn!(text = %failure.text, "gRPC call failed");
            "Internal server error".to_owned()
        }
        _ => failure.text.clone(),
    };
    Status::new(failure.code(), text)
}

/// The name in a load or unload call: Triton's field where it is given, else KServe's.
fn name_of(triton: String, kserve: String) -> String {
    if triton.is_empty() { kserve } else { triton }
}

fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Service {
    pub(super) fn new(app: Arc<App>, closing: CancellationToken) -> Self {
        Self { app, closing }
    }

    fn strict(&self) -> bool {
        self.app.config().kserve.strict
    }

    /// Checks the key and counts a call that KServe's servers do not know.
    fn enter_added(&self, call: &str, metadata: &MetadataMap) -> Result<InFlight, Status> {
        let entered = self.enter(call, metadata)?;
        match self.strict() {
            true => Err(Status::unimplemented("Method not found!")),
            false => Ok(entered),
        }
    }

    /// Checks the key and counts the call.
    fn enter(&self, call: &str, metadata: &MetadataMap) -> Result<InFlight, Status> {
        let path = format!("/inference.GRPCInferenceService/{call}");
        authorize(&self.app, &Method::POST, &path, metadata.as_ref())
            .map_err(|error| Status::unauthenticated(error.message().to_owned()))?;
        self.app.enter();
        Ok(InFlight(Arc::clone(&self.app)))
    }
}

/// Answers one inference request.
async fn answer(
    app: &App,
    metadata: &MetadataMap,
    message: ModelInferRequest,
) -> Result<ModelInferResponse, Failure> {
    let model = app.registry.predictive(&message.model_name, version(&message.model_version));
    // As in KServe's servers, a version is not looked at where there are none.
    let model = model.or_else(|unserved| {
        let model = app.registry.predictive(&message.model_name, None);
        model.ok().filter(|model| model.version.is_none()).ok_or(unserved)
    })?;
    let mut watch = Watch::start(&model.statistics);
    let (mut request, raw) = convert::request(message)?;
    let context = RequestContext::new(metadata.as_ref());
    let deadline = crate::kserve::http::deadline(app, &context)?;
    let deadline = request.deadline(deadline)?;
    let id = request.id.take().unwrap_or_else(random::uuid);
    let raw = raw || request.parameters.bool("binary_data_output").unwrap_or(false);
    let loaded = model.handle.model().as_ref();
    let mut plan = infer::plan(&model.name, loaded, request)?;
    if app.config().kserve.strict {
        strict::check_columns(loaded, &mut plan.request)?;
    }
    let outputs = infer::run(&model, plan, deadline, &mut watch).await?;
    if app.config().kserve.strict {
        strict::check_outputs(&outputs, |_| false)?;
    }
    let name = (model.name.as_str(), model.version.as_deref());
    let response = convert::response(name, id, outputs, raw);
    watch.finish();
    Ok(response)
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.app.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let _call = self.enter("ModelReady", request.metadata())?;
        let ModelReadyRequest { name, version: wanted } = request.into_inner();
        match self.app.registry.readiness(&name, version(&wanted)) {
            Ok(ready) => Ok(Response::new(ModelReadyResponse { ready })),
            Err(unserved) => Err(status(&self.app, unserved.into())),
        }
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: metadata::SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: metadata::extensions(self.strict())
                .iter()
                .map(|&name| name.into())
                .collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let _call = self.enter("ModelMetadata", request.metadata())?;
        let ModelMetadataRequest { name, version: wanted } = request.into_inner();
        let model = self.app.registry.predictive(&name, version(&wanted));
        let model = model.map_err(|unserved| status(&self.app, unserved.into()))?;
        if self.strict() {
            return Ok(Response::new(ModelMetadataResponse { name, ..Default::default() }));
        }
        let spec = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.dtype.name().to_owned(),
            shape: metadata::sizes(spec),
        };
        let loaded = model.handle.model();
        let signature = loaded.signature();
        Ok(Response::new(ModelMetadataResponse {
            versions: self.app.registry.repository().versions(&name),
            name,
            platform: loaded.description().format.to_owned(),
            inputs: signature.inputs.iter().map(spec).collect(),
            outputs: signature.outputs.iter().map(spec).collect(),
            properties: Default::default(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let _call = self.enter("ModelInfer", request.metadata())?;
        let (metadata, _, message) = request.into_parts();
        answer(&self.app, &metadata, message)
            .await
            .map(Response::new)
            .map_err(|failure| status(&self.app, failure))
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    /// As Triton: one answer for each request, in order; a failed one is an error message in the stream, which goes on. It ends with
    /// the client's last request or the server's drain.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let call = self.enter_added("ModelStreamInfer", request.metadata())?;
        let (metadata, _, messages) = request.into_parts();
        let shared = Arc::new((call, metadata));
        let messages = messages.take_until(self.closing.clone().cancelled_owned());
        let answers = messages.then(move |message| {
            let shared = Arc::clone(&shared);
            async move {
                let (InFlight(app), metadata) = &*shared;
                Ok(match answer(app, metadata, message?).await {
                    Ok(response) => ModelStreamInferResponse {
                        error_message: String::new(),
                        infer_response: Some(response),
                    },
                    Err(failure) => ModelStreamInferResponse {
                        error_message: status(app, failure).message().to_owned(),
                        infer_response: None,
                    },
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let _call = self.enter_added("ModelConfig", request.metadata())?;
        let ModelConfigRequest { name, version: wanted } = request.into_inner();
        let model = self.app.registry.predictive(&name, version(&wanted));
        let model = model.map_err(|unserved| status(&self.app, unserved.into()))?;
        Ok(Response::new(ModelConfigResponse { config: Some(describe::config(&model)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let _call = self.enter_added("ModelStatistics", request.metadata())?;
        let ModelStatisticsRequest { name, version: wanted } = request.into_inner();
        // As Triton: without a name those of every model.
        let models = match name.as_str() {
            "" => self.app.registry.repository().ready(),
            name => {
                let model = self.app.registry.predictive(name, version(&wanted));
                vec![model.map_err(|unserved| status(&self.app, unserved.into()))?]
            }
        };
        let model_stats = models.iter().map(|model| describe::statistics(model)).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let _call = self.enter_added("RepositoryIndex", request.metadata())?;
        let ready = request.into_inner().ready;
        let entries = self.app.registry.repository().index(ready).into_iter();
        let models = entries.map(|entry| ModelIndex {
            name: entry.name,
            version: entry.version,
            state: entry.state.to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let _call = self.enter("RepositoryModelLoad", request.metadata())?;
        let message = request.into_inner();
        let model_name = name_of(message.model_name, message.repository_or_model_name);
        let mut config = None;
        for (name, parameter) in message.parameters {
            match (name.as_str(), parameter.parameter_choice) {
                ("config", Some(ParameterChoice::StringParam(text))) => config = Some(text),
                _ => {
                    let text = format!(
                        "the load parameter {name} is not supported; config is, a JSON text"
                    );
                    return Err(Status::new(Code::InvalidArgument, text));
                }
            }
        }
        let loaded = self.app.registry.repository().load(&model_name, config.as_deref()).await;
        loaded.map_err(|failure| match self.strict() {
            // A defect of KServe's error interceptor.
            true => Status::unknown(failure.text),
            false => status(&self.app, failure),
        })?;
        Ok(Response::new(RepositoryModelLoadResponse { model_name, is_loaded: true }))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let _call = self.enter("RepositoryModelUnload", request.metadata())?;
        let message = request.into_inner();
        let model_name = name_of(message.model_name, message.repository_or_model_name);
        let unloaded = self.app.registry.repository().unload(&model_name).await;
        unloaded.map_err(|failure| status(&self.app, failure))?;
        Ok(Response::new(RepositoryModelUnloadResponse { model_name, is_unloaded: true }))
    }
}
