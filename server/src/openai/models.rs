//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::kserve::metadata;
use crate::registry::Generative;

/// The list, in the order of registration: OpenAI's with KServe's names beside it; KServe's alone where no
/// language model is served.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let models = app.registry.language_models();
    let names = metadata::names(&app);
    let data: Vec<Value> = models.iter().map(|(name, model)| card(name, model)).collect();
    if data.is_empty() && !names.is_empty() {
        return body::json(&json!({ "models": names }));
    }
    body::json(&json!({ "object": "list", "data": data, "models": names }))
}

/// One model; its id may hold slashes, encoded or not.
pub(crate) async fn retrieve(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let model = app.registry.language_model(&id).ok_or_else(|| ApiError::model_not_found(&id))?;
    Ok(body::json(&card(&id, model)))
}

/// The entry of a language model; classic models are not in OpenAI's list.
fn card(name: &str, model: &Generative) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "tokenmill",
        "root": model.root,
        "parent": null,
        "max_model_len": model.max_model_len(),
        "permission": [{
            "id": format!("modelperm-{name}"),
            "object": "model_permission",
            "created": model.created,
            "allow_create_engine": false,
            "allow_sampling": true,
            "allow_logprobs": true,
            "allow_search_indices": false,
            "allow_view": true,
            "allow_fine_tuning": false,
            "organization": "*",
            "group": null,
            "is_blocking": false,
        }],
    })
}
