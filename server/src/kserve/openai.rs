//! Failures of the OpenAI routes below KServe's prefix, as KServe's servers write them.
//!
//! A body that fails validation is 422 there and 400 on the bare routes, `code` is a text and `param` never null. Their servers
//! answer an unknown model and a failed validation in other forms than the OpenAI error object, which no client of OpenAI's
//! reads: only `--strict-kserve` does the same.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::ApiError;

/// Rewrites a failed response.
pub(crate) async fn failures(response: Response) -> Response {
    rewrite(response, |error, _| error_object(error))
}

/// Rewrites a failed response as `--strict-kserve` wants it: an unknown model is a text, what fails validation has `detail`.
pub(crate) async fn strict_failures(response: Response) -> Response {
    rewrite(response, |error, status| match (status, unknown_model(error.message())) {
        (StatusCode::NOT_FOUND, Some(name)) => {
            json!({"error": format!("Model with name {name} does not exist.")})
        }
        _ if error.is_of_body() => {
            let place = std::iter::once("body").chain(error.param()).collect::<Vec<_>>();
            let message = error.message();
            json!({"detail": [{"type": "value_error", "loc": place, "msg": message, "input": null}]})
        }
        _ => error_object(error),
    })
}

fn rewrite(mut response: Response, body: impl Fn(&ApiError, StatusCode) -> Value) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let error = error.for_kserve();
    let status = error.status();
    let mut written = (status, axum::Json(body(&error, status))).into_response();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.extend(std::mem::take(written.headers_mut()));
    *written.headers_mut() = parts.headers;
    *written.extensions_mut() = parts.extensions;
    written
}

/// The OpenAI error object with texts alone.
fn error_object(error: &ApiError) -> Value {
    let mut body = error.body();
    let object = &mut body["error"];
    object["code"] = error.status().as_str().into();
    if object["param"].is_null() {
        object["param"] = "".into();
    }
    body
}

/// The name in [`ApiError::model_not_found`].
fn unknown_model(message: &str) -> Option<&str> {
    message.strip_prefix("The model `")?.strip_suffix("` does not exist.")
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    async fn body(response: Response) -> Value {
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn errors_take_kserves_form() {
        let check = async |error: ApiError, status: u16, want: Value, strict: Value| {
            for (response, want) in [
                (failures(error.clone().into_response()).await, want),
                (strict_failures(error.into_response()).await, strict),
            ] {
                assert_eq!(response.status(), status);
                assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
                assert_eq!(body(response).await, want);
            }
        };
        let object = |message: &str, kind: &str, param: &str, code: &str| json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
        let unknown = object("The model `m` does not exist.", "NotFoundError", "model", "404");
        let text = json!({"error": "Model with name m does not exist."});
        check(ApiError::model_not_found("m"), 404, unknown, text).await;
        let detail =
            json!({"type": "value_error", "loc": ["body", "seed"], "msg": "no", "input": null});
        let unfit = object("no", "UnprocessableEntityError", "seed", "422");
        let error = ApiError::bad_request("no").of_body().with_param("seed");
        check(error, 422, unfit, json!({ "detail": [detail] })).await;
        let later = object("no", "BadRequestError", "", "400");
        check(ApiError::bad_request("no"), 400, later.clone(), later).await;
        let mut long = object("long", "BadRequestError", "input_tokens", "400");
        long["error"]["reason"] = "context_length_exceeded".into();
        check(ApiError::context_length("long".into(), "input_tokens"), 400, long.clone(), long)
            .await;
    }

    #[tokio::test]
    async fn headers_stay_and_what_did_not_fail_is_untouched() {
        let busy = failures(ApiError::overloaded("full").into_response()).await;
        assert_eq!(busy.headers()[header::RETRY_AFTER], "1");
        assert_eq!(body(busy).await["error"]["code"], "429");
        assert_eq!(body(failures(axum::Json(json!({"a": 1})).into_response()).await).await["a"], 1);
    }
}
