//! `pods/log`: a container's log, streamed from the agent of the node that the pod runs on.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, Status};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::nodes::{ANSWER_WITHIN, MAX_ERROR_BYTES, NodeAddress, escape, refused};
use crate::pipeline::read;
use crate::query::Query;
use crate::response::{Body, Response};
use crate::route::Target;

/// Streams the requested log.
///
/// # Errors
/// `BadRequest` or `Invalid` for invalid options, `NotFound` for an absent pod, `BadRequest` for a container that the
/// pod does not have, otherwise the node's error.
pub(crate) async fn logs(
    api: &Api,
    target: &Target,
    query: &Query,
    shutdown: &CancellationToken,
) -> Result<Response, Status> {
    let options = options(target.name(), query)?;
    let kv = read::get(api.store(), target, None).await?;
    let pod: Value = serde_json::from_slice(&kv.value).map_err(Status::internal)?;
    let container = container(target, &pod, query.get("container"))?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // An unscheduled pod has no log yet; Kubernetes answers the same.
        return Ok(Response::text(200, ""));
    }
    let source = NodeAddress::find(api, node).await?;
    let path = format!(
        "/containerLogs/{}/{}/{}?{options}",
        escape(target.namespace.as_deref().unwrap_or_default()),
        escape(target.name()),
        escape(&container)
    );
    fetch(api, &source, &path, shutdown.clone()).await
}

/// Checks the options as Kubernetes checks a `v1 PodLogOptions`, and returns those that the node understands as the
/// query of its log endpoint. Other parameters are dropped, as in Kubernetes.
fn options(pod: &str, query: &Query) -> Result<String, Status> {
    let (lines, bytes) = (query.number::<i64>("tailLines")?, query.number::<i64>("limitBytes")?);
    let seconds = query.number::<i64>("sinceSeconds")?;
    let parse = |text: &str| {
        let invalid =
            |error: jiff::Error| Status::bad_request(format!("sinceTime: invalid time {text:?} in the query: {error}"));
        text.parse::<Timestamp>().map_err(invalid)
    };
    let time = query.get("sinceTime").map(parse).transpose()?;
    let mut errors = Vec::new();
    if let Some(lines) = lines.filter(|lines| *lines < 0) {
        errors.push(FieldError::invalid(FieldPath::new("tailLines"), lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = bytes.filter(|bytes| *bytes < 1) {
        errors.push(FieldError::invalid(FieldPath::new("limitBytes"), bytes, "must be greater than 0"));
    }
    match (seconds, time) {
        (Some(_), Some(_)) => {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(FieldPath::default(), detail));
        }
        (Some(seconds), None) if seconds < 1 => {
            errors.push(FieldError::invalid(FieldPath::new("sinceSeconds"), seconds, "must be greater than 0"));
        }
        _ => {}
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, &errors));
    }
    let flags = ["follow", "previous", "timestamps"].map(|name| (name, query.flag(name).then(|| "true".to_owned())));
    let values = [
        ("tailLines", lines.map(|lines| lines.to_string())),
        ("limitBytes", bytes.map(|bytes| bytes.to_string())),
        ("sinceSeconds", seconds.map(|seconds| seconds.to_string())),
        ("sinceTime", time.map(|time| escape(&time.to_string()))),
    ];
    let given = flags.into_iter().chain(values).filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    Ok(given.collect::<Vec<_>>().join("&"))
}

pub(crate) fn container(target: &Target, pod: &Value, wanted: Option<&str>) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (containers, init_containers) = (names("containers"), names("initContainers"));
    let ephemeral_containers = names("ephemeralContainers");
    let name = target.name();
    match wanted {
        Some(wanted)
            if [&containers, &init_containers, &ephemeral_containers].iter().any(|list| list.contains(&wanted)) =>
        {
            Ok(wanted.to_owned())
        }
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None if containers.len() == 1 => Ok(containers[0].to_owned()),
        None => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", containers.join(" "));
            for (kind, names) in [("init", init_containers), ("ephemeral", ephemeral_containers)] {
                if !names.is_empty() {
                    message.push_str(&format!(" or one of the {kind} containers: [{}]", names.join(" ")));
                }
            }
            Err(Status::bad_request(message))
        }
    }
}

async fn fetch(api: &Api, source: &NodeAddress, path: &str, shutdown: CancellationToken) -> Result<Response, Status> {
    let unreachable = |error: &dyn std::fmt::Display| source.unreachable("logs", error);
    let tls = source.connect(api, "logs").await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| unreachable(&e))?;
    // The connection has no task of its own. The wait for the response drives it, and then the body's stream.
    let mut connection = Box::pin(connection.map(|ended| {
        if let Err(error) = ended {
            tracing::debug!(%error, "a log connection ended");
        }
    }))
    .fuse();
    let request =
        Request::get(path).header(header::HOST, source.host()).body(Empty::<Bytes>::new()).map_err(Status::internal)?;
    let answer = async {
        let mut sent = std::pin::pin!(sender.send_request(request).fuse());
        loop {
            futures::select_biased! {
                answer = sent => return answer,
                () = connection => {}
            }
        }
    };
    let answer = match timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|e| unreachable(&e))?,
        Err(late) => return Err(unreachable(&late)),
    };
    let code = answer.status();
    let mut body = answer.into_body();
    if !code.is_success() {
        let collect = async {
            let mut collected = std::pin::pin!(Limited::new(&mut body, MAX_ERROR_BYTES).collect().fuse());
            loop {
                futures::select_biased! {
                    text = collected => return text.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
                    () = connection => {}
                }
            }
        };
        let text = timeout(ANSWER_WITHIN, collect).await.unwrap_or_default();
        return Err(refused(code.as_u16(), &text));
    }
    let parts = (body, connection, shutdown);
    let chunks = stream::unfold(parts, |(mut body, mut connection, shutdown)| async move {
        loop {
            let frame = {
                let mut next = std::pin::pin!(body.frame().fuse());
                let mut ended = std::pin::pin!(shutdown.cancelled().fuse());
                futures::select_biased! {
                    () = ended => return None,
                    frame = next => Some(frame),
                    () = connection => None,
                }
            };
            match frame {
                // The connection has ended, but the body may still hold data that it had read.
                None => {}
                Some(None) => return None,
                Some(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), (body, connection, shutdown)));
                    }
                }
                Some(Some(Err(error))) => {
                    return Some((Err(std::io::Error::other(error)), (body, connection, shutdown)));
                }
            }
        }
    });
    Ok(Response::new(200, "text/plain", Body::Stream(chunks.boxed())))
}
